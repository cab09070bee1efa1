#!/usr/bin/env python3
"""Compares Tessera with other engines on models of one shape: their runs alternate, medians and ratios are printed.

    benchmarks/compare_peers.py --tessera build/cpu/tessera --model DIR --numerics int8-g32 --threads 2 --rounds 5 \\
        --llama llama.cpp=LLAMA_BUILD/bin/llama-batched-bench --gguf MODEL.gguf \\
        --peer 'other=./program --with --its --flags' --output peers

Writes peers.json (every round, with machine and flags), peers.md (the table) and peers.html (the same as bars).
--llama takes llama.cpp's llama-batched-bench, once or more often, and gives each the model of --gguf. Any other
program can be a --peer if its last line on stdout is JSON with tokens per second:
{"decode": {"1": 20.5, "4": 40.1}, "prefill": {"512": 130.0}}, keys being sequences of a step and tokens of the prompt.
What is the same for all (shape, bits of a weight, threads) is the caller's care. Each run loads its model anew;
only what the programs time themselves counts. `others` is the part of the machine that other processes took.
"""

import argparse
import html
import json
import os
import platform
import resource
import shlex
import statistics
import subprocess
import sys
import tempfile
import time

PATIENCE = 1800  # seconds for one run of one program


def machine_ticks():
    """(busy, all) processor time of the machine so far, in clock ticks."""
    with open("/proc/stat") as file:
        fields = [int(field) for field in file.readline().split()[1:9]]
    return sum(fields) - fields[3] - fields[4], sum(fields)


def child_ticks():
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return (used.ru_utime + used.ru_stime) * os.sysconf("SC_CLK_TCK")


def run(command):
    """Stdout of a command, and the part of the machine that others took meanwhile."""
    busy, total = machine_ticks()
    own = child_ticks()
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)
    if done.returncode != 0:
        sys.exit(f"{shlex.join(command)}: exit {done.returncode}\n{done.stderr[-2000:]}")
    busy_after, total_after = machine_ticks()
    others = (busy_after - busy - (child_ticks() - own)) / max(1, total_after - total)
    return done.stdout, max(0.0, others)


class Tessera:
    """`tessera bench decode` and `prefill`, one round of each at a time."""

    def __init__(self, options):
        self.name = "tessera " + options.numerics
        self.options = options

    def measure(self):
        rates, others = {}, []
        for phase, flags in (("decode", ["--batch-sizes", self.options.batch_sizes, "--steps", str(self.options.steps),
                                         "--prompt-lengths", str(self.options.depth)]),
                             ("prefill", ["--prompt-lengths", self.options.prompt_lengths])):
            with tempfile.TemporaryDirectory() as folder:
                path = os.path.join(folder, "result.json")
                command = [self.options.tessera, "bench", phase, "--model", self.options.model, "--rounds", "1",
                           "--numerics", self.options.numerics, "--threads-per-rank", str(self.options.threads),
                           "--output-json", path, *flags, *shlex.split(self.options.tessera_flags)]
                others.append(run(command)[1])
                with open(path) as file:
                    result = json.load(file)
            for point in result["points"]:
                size = point["batch_size"] if phase == "decode" else point["prompt_tokens"]
                rates[phase, size] = point["tokens_per_s"]
        return rates, max(others)


class Llama:
    """llama-batched-bench: prompts of --depth tokens, then decode steps; and one long prompt at a time."""

    def __init__(self, name, program, options):
        self.name = name
        self.program = program
        self.options = options

    def lines(self, prompts, steps, batches, context):
        command = [self.program, "-m", self.options.gguf, "-t", str(self.options.threads), "-tb",
                   str(self.options.threads), "-c", str(context), "-npp", prompts, "-ntg", str(steps), "-npl", batches,
                   "--output-format", "jsonl", *shlex.split(self.options.llama_flags)]
        out, others = run(command)
        return [json.loads(line) for line in out.splitlines() if line.startswith("{")], others

    def measure(self):
        batches = [int(size) for size in self.options.batch_sizes.split(",")]
        prompts = [int(size) for size in self.options.prompt_lengths.split(",")]
        steps, depth = self.options.steps, self.options.depth
        lines, others = self.lines(str(depth), steps, self.options.batch_sizes, max(batches) * (depth + steps))
        rates = {("decode", line["pl"]): line["speed_tg"] for line in lines}
        lines, more = self.lines(self.options.prompt_lengths, 1, "1", max(prompts) + 1)
        rates.update({("prefill", line["pp"]): line["speed_pp"] for line in lines})
        return rates, max(others, more)


class Program:
    """Any command that prints its rates as JSON."""

    def __init__(self, name, command):
        self.name = name
        self.command = shlex.split(command)

    def measure(self):
        out, others = run(self.command)
        lines = [line for line in out.splitlines() if line.startswith("{")]
        if not lines:
            sys.exit(f"{self.name}: no line of JSON on stdout")
        result = json.loads(lines[-1])
        return {(phase, int(size)): float(rate) for phase in ("decode", "prefill")
                for size, rate in result.get(phase, {}).items()}, others


def spread(values):
    return f"{statistics.median(values):.1f} ({min(values):.1f}–{max(values):.1f})"


def ratio(rounds, ours, theirs, point):
    """Median of the rounds' own ratios: both sides of each were measured one after the other."""
    values = [one[ours][point] / one[theirs][point] for one in rounds if point in one[ours] and point in one[theirs]]
    return statistics.median(values) if values else None


def table(rounds, names):
    points = sorted({point for one in rounds for rates in one.values() for point in rates})
    head = ["tokens/s, median (spread)", *names, *(f"{names[0]} / {name}" for name in names[1:])]
    rows = []
    for point in points:
        row = [f"decode, batch {point[1]}" if point[0] == "decode" else f"prefill, {point[1]} tokens"]
        for name in names:
            values = [one[name][point] for one in rounds if point in one[name]]
            row.append(spread(values) if values else "–")
        for name in names[1:]:
            value = ratio(rounds, names[0], name, point)
            row.append("–" if value is None else f"{value:.2f}x")
        rows.append(row)
    return points, [head, *rows]


def markdown(rows):
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join([lines[0], "|---" * len(rows[0]) + "|", *lines[1:]]) + "\n"


def plot(rounds, names, points, title):
    """Bars of the medians with their spread; each point has a scale of its own."""
    colours = ("#2563eb", "#d97706", "#059669", "#7c3aed", "#dc2626", "#0891b2")
    parts, y = [], 30
    for point in points:
        label = f"decode, batch {point[1]}" if point[0] == "decode" else f"prefill, {point[1]} tokens"
        parts.append(f'<text x="10" y="{y}" font-weight="bold">{label}</text>')
        runs = {name: [one[name][point] for one in rounds if point in one[name]] for name in names}
        most = max(max(values) for values in runs.values() if values)
        for index, name in enumerate(names):
            y += 22
            parts.append(f'<text x="10" y="{y}">{html.escape(name)}</text>')
            if not runs[name]:
                continue
            low, middle, high = min(runs[name]), statistics.median(runs[name]), max(runs[name])
            x = [180 + 500 * value / most for value in (low, middle, high)]
            parts.append(f'<rect x="180" y="{y - 12}" width="{x[1] - 180:.1f}" height="15" '
                         f'fill="{colours[index % len(colours)]}"/>')
            parts.append(f'<path d="M{x[0]:.1f} {y - 4}H{x[2]:.1f}" stroke="currentColor" stroke-width="2"/>')
            parts.append(f'<text x="{x[2] + 8:.1f}" y="{y}">{middle:.1f} tokens/s</text>')
        y += 36
    return (f'<!doctype html><meta charset="utf-8"><title>{html.escape(title)}</title>'
            f'<body style="font:14px sans-serif"><h1 style="font-size:18px">{html.escape(title)}</h1>'
            f'<svg width="860" height="{y}" font-family="sans-serif" font-size="13">{"".join(parts)}</svg>')


def processor():
    with open("/proc/cpuinfo") as file:
        names = [line.split(":", 1)[1].strip() for line in file if line.startswith("model name")]
    return names[0] if names else platform.machine()


def parse():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tessera", default="build/cpu/tessera", help="the binary")
    parser.add_argument("--model", required=True, help="Tessera's model folder")
    parser.add_argument("--numerics", default="f32", help="of Tessera")
    parser.add_argument("--tessera-flags", default="", help="more flags, as one word: '--load-format dummy'")
    parser.add_argument("--llama", action="append", default=[], metavar="NAME=PROGRAM", help="a llama-batched-bench")
    parser.add_argument("--gguf", help="the model of --llama")
    parser.add_argument("--llama-flags", default="", help="more flags, as one word: '-fa on'")
    parser.add_argument("--peer", action="append", default=[], metavar="NAME=COMMAND", help="any other program")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--batch-sizes", default="1,4,16")
    parser.add_argument("--prompt-lengths", default="512")
    parser.add_argument("--depth", type=int, default=16, help="tokens of each sequence before the decode steps")
    parser.add_argument("--steps", type=int, default=32, help="decode steps of a round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--output", default="peers", help="of the files, without their endings")
    options = parser.parse_args()
    if options.llama and not options.gguf:
        parser.error("--llama needs --gguf")
    for pair in options.llama + options.peer:
        if "=" not in pair:
            parser.error(f"{pair}: expected NAME=COMMAND")
    if options.rounds < 1:
        parser.error("--rounds: expected at least 1")
    return options


def main():
    options = parse()
    engines = [Tessera(options)]
    engines += [Llama(*pair.split("=", 1), options) for pair in options.llama]
    engines += [Program(*pair.split("=", 1)) for pair in options.peer]
    names = [engine.name for engine in engines]
    rounds, others = [], {name: [] for name in names}
    for index in range(options.rounds):
        # The order turns, so that nobody always follows the same neighbour.
        turn = engines[index % len(engines):] + engines[:index % len(engines)]
        rounds.append({})
        for engine in turn:
            rounds[-1][engine.name], taken = engine.measure()
            others[engine.name].append(taken)
        print(f"round {index + 1} of {options.rounds}", file=sys.stderr)
    points, rows = table(rounds, names)
    title = f"{processor()}, {options.threads} threads, {options.rounds} rounds"
    text = markdown(rows) + "\nTaken by other processes: " + ", ".join(
        f"{name} {100 * statistics.median(values):.0f} %" for name, values in others.items()) + "\n"
    print(f"{title}\n\n{text}")
    result = {"processor": processor(), "date": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), "options": vars(options),
              "others": others,
              "rounds": [{name: {f"{phase} {size}": rate for (phase, size), rate in rates.items()}
                          for name, rates in one.items()} for one in rounds]}
    for ending, content in (("json", json.dumps(result, indent=1) + "\n"), ("md", f"{title}\n\n{text}"),
                            ("html", plot(rounds, names, points, title))):
        with open(f"{options.output}.{ending}", "w") as file:
            file.write(content)


if __name__ == "__main__":
    main()
