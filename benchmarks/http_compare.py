#!/usr/bin/env python3
"""Compares two servers' HTTP doors on this machine: their runs of http_bench alternate, and medians are printed.

    benchmarks/http_compare.py --rounds 5 \\
        'build/cpu/tessera serve MODEL --load-format dummy --port {port} --grpc-port -1 --log-level warning' \\
        'llama-server -m tiny.gguf --port {port} --parallel 64'

Each command gets a free port and must serve /v1/completions on it; both run for the whole comparison, idle
while the other is measured. A peer's model should cost as little as ours, so that the door is what is seen.
"""

import argparse
import re
import statistics
import subprocess

from servers import running

LINE = re.compile(r"^(?P<name>.*?)\s+(?P<connections>\d+) conn\s+(?P<rate>\d+) req/s.*first p50\s+(?P<first>[\d.]+)"
                  r".*failed (?P<failed>\d+)")


def measure(program, port):
    """{(name, connections): (requests per second, first p50 in ms, failures)} of one run."""
    done = subprocess.run([program, f"--port={port}"], capture_output=True, text=True, check=True)
    rows = {}
    for line in done.stdout.splitlines():
        found = LINE.match(line)
        if found:
            rows[found["name"], int(found["connections"])] = (
                float(found["rate"]), float(found["first"]), int(found["failed"]))
    return rows


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("commands", nargs="+", help="servers, with {port} in the place of their port")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--http-bench", default="build/cpu/benchmarks/http_bench")
    arguments = parser.parse_args()
    results = [{} for _ in arguments.commands]
    with running(arguments.commands) as ports:
        for _ in range(arguments.rounds):
            for port, found in zip(ports, results):
                for key, values in measure(arguments.http_bench, port).items():
                    found.setdefault(key, []).append(values)
    for command, found in zip(arguments.commands, results):
        print(command)
        for (name, connections), runs in found.items():
            rates, firsts, failures = zip(*runs)
            print(f"  {name:<20} {connections:>3} conn  {statistics.median(rates):>7.0f} req/s "
                  f"({min(rates):.0f} to {max(rates):.0f})  first {statistics.median(firsts):>7.2f} ms "
                  f"({min(firsts):.2f} to {max(firsts):.2f})  failed {sum(failures)}")


if __name__ == "__main__":
    main()
