"""A worker that was started with other settings than the coordinator's is refused, and both sides say what differs."""

import os
import re
import subprocess
import tempfile
import unittest

import server

TOKEN = {"TESSERA_CLUSTER_TOKEN": "a token of this test"}
# One layer of made-up weights: what is looked at is who may join.
MODEL = (server.MODEL, "--load-format", "dummy", "--override", "num_hidden_layers=1",
         "--override", "num_nextn_predict_layers=0", "--max-model-len", "256", "--max-num-seqs", "4",
         "--num-kv-blocks", "64")


class Registration(unittest.TestCase):
    def start(self, name, *arguments):
        """A process in the background and the path of its log."""
        log = tempfile.NamedTemporaryFile(prefix=f"tessera-{name}-")
        self.addCleanup(log.close)
        process = subprocess.Popen(
            [server.binary(), name, *MODEL, *map(str, arguments)], stdin=subprocess.DEVNULL,
            stdout=log, stderr=log, env={**os.environ, **TOKEN}, preexec_fn=server._end_with_parent)
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)
        return process, log.name

    def wait_for(self, process, path, pattern):
        def found():
            with open(path, encoding="utf-8", errors="replace") as log:
                text = log.read()
            match = re.search(pattern, text)
            if not match and process.poll() is not None:
                raise AssertionError(f"ended with {process.returncode} before {pattern!r}:\n{text}")
            return match
        return server.wait_until(found, f"the log says {pattern!r}")

    def test_only_a_worker_with_the_coordinators_settings_joins(self):
        coordinator, log = self.start("coordinator", "--port", 0, "--grpc-port", -1,
                                      "--cluster-listen", "127.0.0.1:0")
        address = self.wait_for(coordinator, log, r"waiting for workers.*?(127\.0\.0\.1:\d+)").group(1)
        other = server.run("worker", *MODEL, "--coordinator", address, "--block-size", 32,
                           "--speculative-tokens", 0, environment=TOKEN)
        self.assertNotEqual(other.returncode, 0, other)
        self.assertIn("block-size 32, expected 16", other.stderr)
        self.wait_for(coordinator, log, r"a member was refused.*block-size 32, expected 16")
        self.start("worker", "--coordinator", address)
        self.wait_for(coordinator, log, r" at http://")


if __name__ == "__main__":
    server.main()
