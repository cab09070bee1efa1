#!/usr/bin/env python3
"""Compares servers by decode and prefill rates: their runs of `tessera bench serve` alternate, and ratios are printed.

    benchmarks/ranks_compare.py --tessera build/cpu/tessera --rounds 5 --vocab 32768 \\
        'build/cpu/tessera serve MODEL --port {port} --grpc-port -1 --threads-per-rank 2' \\
        'build/cpu/tessera serve MODEL --port {port} --grpc-port -1 --threads-per-rank 1 --workers 2 --tensor-parallel-size 2 --comm mpi'

What two ranks cost on one machine is a comparison of one process with as many threads as they have together. Each
command gets a free port; all run for the whole comparison, idle while another is measured. Rates are what clients
see: decode is the sequences of a step over the time per output token, prefill the tokens of a prompt over the time to
its first token. Prompts are the same for all servers of a round, and others in every round: no prefix is found.
"""

import argparse
import json
import os
import statistics
import subprocess
import tempfile

from servers import running


def bench(options, port, seed, sequences, prompt, output):
    """The result of one run: `sequences` requests at once."""
    with tempfile.TemporaryDirectory() as folder:
        command = [options.tessera, "bench", "serve", "--port", str(port), "--num-prompts", str(sequences),
                   "--random-input-len", str(prompt), "--random-output-len", str(output), "--seed", str(seed),
                   "--random-range", str(options.vocab), "--save-result", "--result-dir", folder,
                   "--result-filename", "result.json"]
        subprocess.run(command, capture_output=True, text=True, check=True, timeout=options.patience)
        with open(os.path.join(folder, "result.json")) as file:
            return json.load(file)


def measure(options, port, seed):
    """{point: tokens per second} of one server."""
    rates = {}
    for batch in options.batch_sizes:
        result = bench(options, port, seed, batch, options.depth, options.steps)
        rates["decode", batch] = 1000.0 * batch / result["median_tpot_ms"]
    for length in options.prompt_lengths:
        result = bench(options, port, seed, 1, length, 1)
        rates["prefill", length] = 1000.0 * length / result["median_ttft_ms"]
    return rates


def numbers(text):
    return [int(field) for field in text.split(",") if field]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("commands", nargs="+", help="servers, with {port} in the place of their port")
    parser.add_argument("--tessera", default="build/cpu/tessera", help="the client")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batch-sizes", type=numbers, default=[1, 4, 16], help="sequences of decode steps")
    parser.add_argument("--depth", type=int, default=16, help="tokens of the prompts of decode runs")
    parser.add_argument("--steps", type=int, default=32, help="tokens to ask for in decode runs")
    parser.add_argument("--prompt-lengths", type=numbers, default=[512], help="tokens of prefill runs")
    parser.add_argument("--vocab", type=int, default=250, help="token ids of prompts lie below this")
    parser.add_argument("--patience", type=float, default=600, help="seconds for one run")
    options = parser.parse_args()
    results = [[] for _ in options.commands]
    with running(options.commands, options.patience) as ports:
        for seed in range(options.rounds + 1):
            for port, rounds in zip(ports, results):
                rates = measure(options, port, seed)
                if seed > 0:  # the first one warms up
                    rounds.append(rates)
    for command, rounds in zip(options.commands, results):
        print(command)
        for phase, size in rounds[0]:
            rates = [rates[phase, size] for rates in rounds]
            ratios = [mine[phase, size] / first[phase, size] for mine, first in zip(rounds, results[0])]
            print(f"  {phase:<8}{size:>5}  {statistics.median(rates):>8.1f} tokens/s ({min(rates):.1f} to "
                  f"{max(rates):.1f}), {statistics.median(ratios):.2f}x the first ({min(ratios):.2f} to "
                  f"{max(ratios):.2f})")


if __name__ == "__main__":
    main()
