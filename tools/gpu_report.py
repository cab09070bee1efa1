#!/usr/bin/env python3
"""Makes report.md of a folder that `./dev gpu` filled: the card, its clocks, and each op's share of the roofline.

Usage: gpu_report.py FOLDER. Reads gpu.csv and gpu_after.csv (nvidia-smi), commit.txt, tests.txt (ctest) and kernels.json
(benchmarks/kernels_bench). The limits are those that the benchmark measured in the same run. A share above 1 is a bug in
the benchmark, or memory that a cache held; the report marks it. Standard library only.
"""

import csv
import json
import pathlib
import re
import sys

# What kernels_bench writes of each op.
COUNTERS = ("us_per_op", "bytes_per_s", "fma_per_s", "read_share", "peak_share", "share")


def read_facts(text):
    """The rows of nvidia-smi's CSV as dictionaries."""
    rows = [[cell.strip() for cell in row] for row in csv.reader(text.splitlines())]
    return [dict(zip(rows[0], row)) for row in rows[1:]]


def facts_table(before, after):
    lines = ["| | before | after |", "|---|---|---|"]
    for name in before[0]:
        lines.append(f"| {name} | {before[0][name]} | {after[0].get(name, '?')} |")
    return lines


def test_summary(text):
    """Number of tests, and the names of those that did not pass."""
    outcomes = re.findall(r"Test +#\d+: (\S+) \.*\s*(Passed|\*\*\*\w+)", text)
    return len(outcomes), [f"{name}: {outcome.strip('*')}" for name, outcome in outcomes if outcome != "Passed"]


def op_rows(results):
    """(name, counters), best first, of the ops that were measured, and the names of those that were not."""
    measured, skipped = [], []
    for row in results["benchmarks"]:
        if row.get("error_occurred") or not all(key in row for key in COUNTERS):
            skipped.append(f"{row['name']}: {row.get('error_message', 'no figures')}")
        else:
            measured.append((row["name"], {key: row[key] for key in COUNTERS}))
    return sorted(measured, key=lambda row: -row[1]["share"]), skipped


def report(facts_before, facts_after, commit, tests, results):
    """The Markdown text."""
    context = results["context"]
    count, not_passed = test_summary(tests)
    measured, skipped = op_rows(results)
    lines = [f"# GPU run on {context['device']}", "",
             f"Commit {commit.strip()}, {context['date']}. Measured by `./dev gpu` with the portable ops, float32.", ""]
    lines += facts_table(read_facts(facts_before), read_facts(facts_after))
    lines += ["", f"Tests: {count} run, {count - len(not_passed)} passed" +
              (": " + "; ".join(not_passed) if not_passed else "") + ".", "",
              f"Limits of this run: reads {float(context['read_bytes_per_s']) / 1e9:.0f} GB/s, "
              f"{2 * float(context['fma_per_s']) / 1e12:.1f} TFLOP/s of float32 multiply-adds. "
              "Shares are of them; tensor cores are not in them.", "",
              "| op | µs | GB/s | TFLOP/s | of reads | of multiply-adds | of the roofline |",
              "|---|---|---|---|---|---|---|"]
    for name, row in measured:
        mark = " (above 1: cached)" if row["share"] > 1 else ""
        lines.append(f"| {name} | {row['us_per_op']:.1f} | {row['bytes_per_s'] / 1e9:.1f} | "
                     f"{2 * row['fma_per_s'] / 1e12:.3f} | {row['read_share']:.3f} | {row['peak_share']:.3f} | "
                     f"{row['share']:.3f}{mark} |")
    if skipped:
        lines += ["", "Not measured: " + "; ".join(skipped) + "."]
    return "\n".join(lines) + "\n"


def main(arguments):
    if len(arguments) != 1:
        print(__doc__, file=sys.stderr)
        return 2
    folder = pathlib.Path(arguments[0])
    texts = [(folder / name).read_text(encoding="utf-8")
             for name in ("gpu.csv", "gpu_after.csv", "commit.txt", "tests.txt", "kernels.json")]
    (folder / "report.md").write_text(report(*texts[:4], json.loads(texts[4])), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
