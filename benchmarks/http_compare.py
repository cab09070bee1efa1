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
import shlex
import signal
import socket
import statistics
import subprocess
import time
import urllib.error
import urllib.request

LINE = re.compile(r"^(?P<name>.*?)\s+(?P<connections>\d+) conn\s+(?P<rate>\d+) req/s.*first p50\s+(?P<first>[\d.]+)"
                  r".*failed (?P<failed>\d+)")


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_ready(url, process, seconds=120):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and process.poll() is None:
        try:
            with urllib.request.urlopen(f"{url}/health", timeout=5) as answer:
                if answer.status == 200:
                    return
        except (urllib.error.URLError, OSError):
            pass
        time.sleep(0.1)
    raise SystemExit(f"{url} is not ready")


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
    servers = []
    try:
        for command in arguments.commands:
            port = free_port()
            process = subprocess.Popen(shlex.split(command.format(port=port)), stdout=subprocess.DEVNULL,
                                       stderr=subprocess.DEVNULL)
            servers.append((process, port, {}))
            wait_ready(f"http://127.0.0.1:{port}", process)
        for _ in range(arguments.rounds):
            for _, port, results in servers:
                for key, values in measure(arguments.http_bench, port).items():
                    results.setdefault(key, []).append(values)
        for command, (_, _, results) in zip(arguments.commands, servers):
            print(command)
            for (name, connections), runs in results.items():
                rates, firsts, failures = zip(*runs)
                print(f"  {name:<20} {connections:>3} conn  {statistics.median(rates):>7.0f} req/s "
                      f"({min(rates):.0f} to {max(rates):.0f})  first {statistics.median(firsts):>7.2f} ms "
                      f"({min(firsts):.2f} to {max(firsts):.2f})  failed {sum(failures)}")
    finally:
        for process, _, _ in servers:
            process.send_signal(signal.SIGTERM)
        for process, _, _ in servers:
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()


if __name__ == "__main__":
    main()
