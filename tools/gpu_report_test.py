#!/usr/bin/env python3
"""The report of a GPU run says what was measured, what failed, and never hides a share above 1."""

import os
import subprocess
import tempfile
import unittest

import gpu_report

FACTS = "name, clocks.current.sm [MHz]\nNVIDIA H100 80GB HBM3, 1755 MHz\n"
TESTS = """\
1/3 Test #7: gpu_parity_test ...........   Passed   12.1 sec
2/3 Test #8: gpu_runtime_test ..........***Failed    1.0 sec
3/3 Test #9: gpu_golden_test ...........***Skipped   0.1 sec
"""


def op(name, share, **more):
    return {"name": name, "us_per_op": 2.0, "bytes_per_s": 1e12, "fma_per_s": 1e12, "read_share": share,
            "peak_share": 0.01, "share": share, **more}


RESULTS = {"context": {"device": "NVIDIA H100 80GB HBM3, sm_90, 132 SMs, 79 GiB", "date": "2026-11-26",
                       "read_bytes_per_s": "3e12", "fma_per_s": "3.1e13"},
           "benchmarks": [op("BM_Slow", 0.1), op("BM_Fast", 1.25),
                          {"name": "BM_Int8", "error_occurred": True, "error_message": "of the cpu alone"}]}


class Report(unittest.TestCase):
    def setUp(self):
        self.text = gpu_report.report(FACTS, FACTS.replace("1755", "1980"), "abc123\n", TESTS, RESULTS)

    def test_names_the_card_its_clocks_and_the_limits_of_the_run(self):
        for expected in ("NVIDIA H100 80GB HBM3", "| 1755 MHz | 1980 MHz |", "abc123", "reads 3000 GB/s", "62.0 TFLOP/s"):
            self.assertIn(expected, self.text)

    def test_a_test_that_failed_or_was_skipped_is_named(self):
        self.assertIn("3 run, 1 passed: gpu_runtime_test: Failed; gpu_golden_test: Skipped", self.text)

    def test_ops_are_listed_best_first_and_a_share_above_one_is_marked(self):
        self.assertLess(self.text.index("BM_Fast"), self.text.index("BM_Slow"))
        self.assertIn("1.250 (above 1: cached)", self.text)
        self.assertNotIn("0.100 (above", self.text)

    def test_what_was_not_measured_has_its_reason(self):
        self.assertIn("Not measured: BM_Int8: of the cpu alone.", self.text)


class DevGpu(unittest.TestCase):
    def run_dev(self, programs):
        """`./dev gpu` where PATH has these programs of the CUDA toolkit alone; nothing is built."""
        root = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
        with tempfile.TemporaryDirectory() as folder:
            for name, script in programs.items():
                path = os.path.join(folder, name)
                with open(path, "w", encoding="utf-8") as file:
                    file.write("#!/bin/sh\n" + script)
                os.chmod(path, 0o755)
            return subprocess.run(
                ["bash", "-c", f"set -euo pipefail; source {root}/tools/setup.sh; source {root}/tools/gpu.sh\n"
                 "make_venv() { echo BUILT; exit 0; }; run_gpu"],
                env={**os.environ, "PATH": folder + ":/usr/bin:/bin"}, cwd=root, capture_output=True, text=True,
                timeout=60, check=False)

    def test_without_a_gpu_it_says_so_before_it_builds(self):
        for programs in ({"nvcc": ""}, {"nvcc": "", "nvidia-smi": "echo No devices were found"}):
            seen = self.run_dev(programs)
            self.assertNotEqual(seen.returncode, 0)
            self.assertIn("no device", seen.stderr)
            self.assertNotIn("BUILT", seen.stdout)

    def test_with_a_gpu_it_goes_on(self):
        seen = self.run_dev({"nvcc": "", "nvidia-smi": "echo 'GPU 0: NVIDIA H100'"})
        self.assertIn("BUILT", seen.stdout)


if __name__ == "__main__":
    unittest.main()
