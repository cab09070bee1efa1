#!/usr/bin/env python3
"""Decode steps of Tessera and other engines by turns of about a second, all of them loaded all the time.

    benchmarks/decode_turns.py --turns 40 --steps 32 \\
        --server 'tessera=build/cpu/tessera serve MODEL --port {port} --grpc-port -1 --threads-per-rank 2' \\
        --program 'other=./program --with --its --flags' --output turns.json

What a shared machine's memory gives can change twofold within seconds, so that runs of a minute each say little about
each other; turns of a second meet the same machine. Neighbours in time are compared: the median of the turns' own
ratios is printed, and the medians themselves.

--server is a Tessera server on a free port, whose rate is that of its own histogram of the time between tokens: the
whole server is in it. --program is any command that prints `ready` when its model is loaded, and then, for each line
`STEPS` on stdin, decodes that many steps at the given depth and prints tokens per second. Both wait idle while others
are measured: their threads have to sleep then. What is the same for all (shape, bits of a weight, threads, depth, batch) is
the caller's care.
"""

import argparse
import concurrent.futures
import contextlib
import json
import random
import shlex
import statistics
import subprocess
import sys
import urllib.request

from servers import running

LATENCY = "tessera_inter_token_latency_seconds"


class Server:
    """`batch` sequences at once, each of `depth` tokens and `steps` more."""

    def __init__(self, port, options):
        self.url = f"http://127.0.0.1:{port}"
        self.options = options
        with urllib.request.urlopen(f"{self.url}/v1/models", timeout=30) as answer:
            self.model = json.load(answer)["data"][0]["id"]

    def latency(self):
        """(seconds, count) of all gaps between tokens so far."""
        totals = {"_sum": 0.0, "_count": 0.0}
        with urllib.request.urlopen(f"{self.url}/metrics", timeout=30) as answer:
            for line in answer.read().decode().splitlines():
                for suffix in totals:
                    if line.startswith(LATENCY + suffix):
                        totals[suffix] += float(line.rsplit(" ", 1)[1])
        return totals["_sum"], totals["_count"]

    def complete(self, prompt):
        body = {"model": self.model, "prompt": prompt, "max_tokens": self.options.steps + 1, "ignore_eos": True,
                "temperature": 0}
        request = urllib.request.Request(f"{self.url}/v1/completions", json.dumps(body).encode(),
                                         {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=self.options.patience) as answer:
            answer.read()

    def measure(self, seed):
        options, draw = self.options, random.Random(seed)
        prompts = [[draw.randrange(options.vocab) for _ in range(options.depth)] for _ in range(options.batch)]
        before = self.latency()
        with concurrent.futures.ThreadPoolExecutor(options.batch) as pool:
            list(pool.map(self.complete, prompts))
        after = self.latency()
        gaps = after[1] - before[1]
        if gaps != options.batch * options.steps:
            sys.exit(f"{self.url}: {gaps:.0f} gaps between tokens, expected {options.batch * options.steps}")
        return options.batch * gaps / (after[0] - before[0])


class Program:
    def __init__(self, process, options):
        self.process = process
        self.options = options
        self.read("ready")

    def read(self, wanted=None):
        for line in self.process.stdout:
            if wanted is None or line.strip() == wanted:
                return line.strip()
        sys.exit(f"{shlex.join(self.process.args)} ended")

    def measure(self, _):
        self.process.stdin.write(f"{self.options.steps}\n")
        self.process.stdin.flush()
        return float(self.read())


@contextlib.contextmanager
def programs(commands):
    """Starts `commands` with pipes; ends them by closing their input."""
    processes = [subprocess.Popen(shlex.split(command), stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                  stderr=subprocess.DEVNULL, text=True) for command in commands]
    try:
        yield processes
    finally:
        for process in processes:
            process.stdin.close()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()


def parse():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--server", action="append", required=True, metavar="NAME=COMMAND")
    parser.add_argument("--program", action="append", default=[], metavar="NAME=COMMAND")
    parser.add_argument("--turns", type=int, default=40)
    parser.add_argument("--steps", type=int, default=32, help="decode steps of a turn")
    parser.add_argument("--depth", type=int, default=16, help="tokens of each prompt of the servers")
    parser.add_argument("--batch", type=int, default=1, help="sequences at once of the servers")
    parser.add_argument("--vocab", type=int, default=250, help="token ids of prompts lie below this")
    parser.add_argument("--patience", type=float, default=600, help="seconds for one request, or one server's start")
    parser.add_argument("--output", help="a file for every turn, as JSON")
    return parser.parse_args()


def report(rates):
    first = next(iter(rates))
    for name, values in rates.items():
        low, middle, high = statistics.quantiles(values, n=4)
        line = f"{name:<24}{middle:>8.1f} tokens/s (quartiles {low:.1f} to {high:.1f}, best {max(values):.1f})"
        if name != first:
            ratios = [mine / theirs for mine, theirs in zip(rates[first], values)]
            low, middle, high = statistics.quantiles(ratios, n=4)
            line += f"; {first} {middle:.2f}x (quartiles {low:.2f} to {high:.2f})"
        print(line)


def main():
    options = parse()
    named = {kind: dict(item.split("=", 1) for item in getattr(options, kind)) for kind in ("server", "program")}
    rates = {name: [] for kind in named.values() for name in kind}
    with programs(named["program"].values()) as processes, \
            running(named["server"].values(), options.patience) as ports:
        engines = dict(zip(named["server"], (Server(port, options) for port in ports)))
        engines.update(zip(named["program"], (Program(process, options) for process in processes)))
        for turn in range(-1, options.turns):
            for name in list(engines) if turn % 2 else reversed(engines):
                rate = engines[name].measure(turn)
                if turn >= 0:  # the first one warms up
                    rates[name].append(rate)
    if options.output:
        with open(options.output, "w") as file:
            json.dump({"options": vars(options), "tokens_per_s": rates}, file, indent=1)
    report(rates)


if __name__ == "__main__":
    main()
