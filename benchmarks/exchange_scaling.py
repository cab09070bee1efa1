#!/usr/bin/env python3
"""How all-to-all messages and bytes grow with ranks: runs exchange_bench as jobs of
processes and as threads, and prints one table. Fails where a counter is not the formula's.

    benchmarks/exchange_scaling.py [--build=build/cpu] [--ranks=2,4,8,16] [--rows=fp8]
"""

import argparse
import os
import subprocess
import sys

HEAD = """| ranks | messages sent | bytes received | of these dispatch + combine | expected bytes | other ranks per token | us |
|---|---|---|---|---|---|---|"""


def run(command):
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, timeout=300, check=False)
    print(done.stdout, end="", flush=True)
    return done.returncode


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--build", default="build/cpu", help="build folder")
    parser.add_argument("--ranks", default="2,4,8,16", help="sizes of the jobs")
    parser.add_argument("--rows", choices=["float32", "fp8"], default="float32", help="what a row is on the wire")
    arguments = parser.parse_args()
    bench = [os.path.join(arguments.build, "benchmarks", "exchange_bench")]
    if arguments.rows == "fp8":
        bench.append("--rows=fp8")
    failures = 0
    print("\nProcesses (MPI over shared memory), one exchange of rank 0:\n\n" + HEAD, flush=True)
    for ranks in arguments.ranks.split(","):
        mpirun = ["mpirun", "-n", ranks, "--quiet", "--oversubscribe", "--bind-to", "none"]
        for name, value in (("btl", "self,vader"), ("btl_vader_single_copy_mechanism", "none"),
                            ("mpi_yield_when_idle", "1"), ("plm", "isolated")):
            mpirun += ["--mca", name, value]
        if os.geteuid() == 0:
            mpirun.append("--allow-run-as-root")
        failures += run(mpirun + bench) != 0
    print("\nThreads of one process:\n\n" + HEAD, flush=True)
    failures += run(bench) != 0
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
