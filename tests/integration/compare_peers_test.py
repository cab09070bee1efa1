"""benchmarks/compare_peers.py: what it writes of Tessera and of a made-up peer."""

import json
import os
import shlex
import subprocess
import sys
import tempfile
import unittest

import server

SCRIPT = os.path.join(os.path.dirname(__file__), "..", "..", "benchmarks", "compare_peers.py")
PEER = """import json; print("noise"); print(json.dumps({"decode": {"1": 0.5}, "prefill": {"8": 0.25}}))"""


def compare(folder, *arguments):
    return subprocess.run(
        [sys.executable, "-B", SCRIPT, "--tessera", server.binary(), "--model", server.MODEL, "--threads", "1",
         "--batch-sizes", "1,2", "--prompt-lengths", "8", "--steps", "2", "--rounds", "2",
         "--output", os.path.join(folder, "peers"), *arguments],
        capture_output=True, text=True, timeout=server.PATIENCE, check=False)


class ComparePeersTest(unittest.TestCase):

    def test_a_peer_stands_beside_tessera_with_the_ratio_of_each_round(self):
        with tempfile.TemporaryDirectory() as folder:
            done = compare(folder, "--peer", f"made <up>={shlex.join([sys.executable, '-c', PEER])}")
            self.assertEqual(done.returncode, 0, done.stderr)
            with open(os.path.join(folder, "peers.json")) as file:
                result = json.load(file)
            with open(os.path.join(folder, "peers.html")) as file:
                page = file.read()
        self.assertEqual(len(result["rounds"]), 2)
        for rates in result["rounds"]:
            self.assertEqual(set(rates["tessera f32"]), {"decode 1", "decode 2", "prefill 8"})
            self.assertEqual(rates["made <up>"], {"decode 1": 0.5, "prefill 8": 0.25})
        ours = sorted(rates["tessera f32"]["decode 1"] / 0.5 for rates in result["rounds"])
        row = next(line for line in done.stdout.splitlines() if line.startswith("| decode, batch 1 "))
        self.assertEqual(row.split(" | ")[-1].rstrip(" |"), f"{sum(ours) / 2:.2f}x")
        # What the peer did not run is left open.
        row = next(line for line in done.stdout.splitlines() if line.startswith("| decode, batch 2 "))
        self.assertEqual(row.split(" | ")[-2:], ["–", "– |"])
        self.assertIn("made &lt;up&gt;", page)

    def test_a_peer_that_fails_is_named(self):
        with tempfile.TemporaryDirectory() as folder:
            done = compare(folder, "--peer", "broken=false")
        self.assertNotEqual(done.returncode, 0)
        self.assertIn("false: exit 1", done.stderr)

    def test_a_peer_without_a_name_is_refused(self):
        with tempfile.TemporaryDirectory() as folder:
            done = compare(folder, "--peer", "program")
        self.assertEqual(done.returncode, 2)
        self.assertIn("NAME=COMMAND", done.stderr)


if __name__ == "__main__":
    server.main()
