"""Prefill and decode on separate ranks, through the HTTP door: rank threads and MPI processes.

The tokens are those of a server without roles, the metrics say what was handed over, streams that are
closed leave nothing behind, and a worker that dies while prompts are handed over takes no stream down
a wrong path.
"""

import os
import signal
import threading
import unittest

import server

TYPED = {"worker_lost", "engram_unavailable", "not_ready", "deadline"}
ROLES = ("--prefill-ranks", "1", "--prefill-min-tokens", "40", "--num-host-blocks", "256",
         "--kv-transfer-mib", "1", "--max-num-batched-tokens", "64")
THREADS = ("--data-parallel-size", "3")
PROCESSES = ("--workers", "4", "--comm", "mpi", "--tensor-parallel-size", "2", "--numa", "bind",
             "--heartbeat-timeout", "3s", "--request-timeout", "100s")


def prompt(number, lines):
    return "".join(f"def f{number}_{line}(a, b):\n    return a + {line}\n" for line in range(lines))


def bodies(length=24):
    """Long prompts, some with a common beginning, and short ones; every other one is sampled."""
    prompts = [prompt(i, 12 + i) for i in range(4)]
    prompts += [prompts[0] + prompt(9, 10), prompts[1][:200] + prompt(8, 9), "def add(", "x = 1\n"]
    made = [server.endless(prompt=text, max_tokens=length) for text in prompts]
    for i in range(1, len(made), 2):
        made[i].update(temperature=0.9, seed=i)
    return made


def hand_overs(metrics):
    return {outcome: metrics[f'tessera_hand_over_sequences_total{{outcome="{outcome}"}}']
            for outcome in ("whole", "given_up")}


class Roles(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        plain = server.start(cls, "--max-num-batched-tokens", "64")
        cls.expected = [one.tokens for one in plain.generate_all(bodies())]
        cls.long = plain.generate_all(bodies(300))
        plain.stop()

    def check_tokens(self, served):
        before = hand_overs(served.metrics())["whole"]
        for one, tokens in zip(served.generate_all(bodies()), self.expected):
            self.assertTrue(one.done, one)
            self.assertEqual(one.tokens, tokens, served.logs())
        metrics = served.metrics()
        self.assertGreater(hand_overs(metrics)["whole"], before)
        self.assertEqual(hand_overs(metrics)["given_up"], 0)
        self.assertGreater(metrics["tessera_hand_over_bytes_total"], 0)
        self.assertGreaterEqual(metrics["tessera_hand_over_tokens_total"],
                                16 * hand_overs(metrics)["whole"])

    def check_closed_streams(self, served):
        """Clients that go away after so many events, none at first."""
        def leave(body, count):
            stream = served.stream(body)
            events = stream.events()
            for _ in range(count):
                next(events, None)
            stream.close()
        threads = [threading.Thread(target=leave, args=(body, i % 4), daemon=True)
                   for i, body in enumerate(bodies(2000) * 3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(server.PATIENCE)
            self.assertFalse(thread.is_alive(), served.logs())
        served.wait_idle()

    def test_threads_serve_the_tokens_of_a_group_without_roles(self):
        served = server.start(self, *ROLES, *THREADS)
        self.check_tokens(served)
        self.check_closed_streams(served)
        self.check_tokens_again(served)
        served.stop()

    def check_tokens_again(self, served):
        """What was cached by then makes no difference."""
        for one, tokens in zip(served.generate_all(bodies()), self.expected):
            self.assertEqual(one.tokens, tokens, served.logs())

    @unittest.skipUnless(server.has_mpi(), "mpirun is not installed")
    def test_processes_serve_them_too_and_survive_a_worker(self):
        served = server.start(self, *ROLES, *PROCESSES)
        self.check_tokens(served)
        self.check_closed_streams(served)
        tokens = threading.Semaphore(0)
        results = []
        streams = threading.Thread(daemon=True, target=lambda: results.extend(
            served.generate_all(bodies(300), on_token=tokens.release)))
        streams.start()
        self.assertTrue(tokens.acquire(timeout=server.PATIENCE), "no tokens")
        os.kill(served.children("worker")[0], signal.SIGKILL)
        streams.join(2 * server.PATIENCE)
        self.assertFalse(streams.is_alive(), f"a stream hangs\n{served.logs()}")
        for one, whole in zip(results, self.long):
            self.assertEqual(one.tokens, whole.tokens[:len(one.tokens)], one)
            self.assertTrue(one.error is None or one.error["code"] in TYPED, one)
        server.wait_until(lambda: served.get("/readyz").status == 200, "it is ready again")
        self.check_tokens(served)
        served.stop()

    def test_roles_that_cannot_be_are_refused_with_a_reason(self):
        for arguments, reason in (
                (("--prefill-ranks", "2", "--num-host-blocks", "8"), "at least one that decodes"),
                (("--prefill-ranks", "1"), "without host memory"),
                (("--prefill-ranks", "1", "--num-host-blocks", "8", "--prefill-min-tokens", "16"),
                 "more than a block"),
                (("--prefill-ranks", "1", "--no-enable-prefix-caching"), "cached prefixes")):
            ended = server.run("serve", server.MODEL, "--port", "0", "--data-parallel-size", "2",
                               *arguments)
            self.assertNotEqual(ended.returncode, 0, arguments)
            self.assertIn(reason, ended.stderr)


if __name__ == "__main__":
    server.main()
