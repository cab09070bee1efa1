"""Signals: the first drains, the second ends at once."""

import signal
import threading
import time
import unittest

import server


class Drain(unittest.TestCase):
    def begin(self, running, **fields):
        """A stream in another thread, with its first token here; returns (thread, [Generation])."""
        results, begun = [], threading.Event()
        thread = threading.Thread(
            target=lambda: results.append(
                running.generate(server.endless(**fields), on_token=begun.set)), daemon=True)
        thread.start()
        self.assertTrue(begun.wait(server.PATIENCE), running.logs())
        return thread, results

    def wait_draining(self, running):
        server.wait_until(lambda: running.get("/readyz").status == 503, "the server drains")

    def test_sigterm_finishes_streams_and_refuses_new_requests(self):
        running = server.start(self)
        whole = running.generate(server.endless(max_tokens=150))
        thread, results = self.begin(running, max_tokens=150)
        running.send(signal.SIGTERM)
        self.wait_draining(running)
        self.assertEqual(running.get("/health").status, 200)
        self.assertEqual(running.get("/livez").status, 200)
        reply = running.post("/v1/completions", server.endless(max_tokens=1))
        self.assertEqual(reply.status, 503, reply)
        self.assertEqual(reply.error["code"], "shutting_down")
        self.assertGreaterEqual(int(reply.headers["retry-after"]), 1)
        self.assertEqual(results, [], "the stream ended before the questions were asked")
        thread.join(server.PATIENCE)
        self.assertEqual(results[0].tokens, whole.tokens)
        self.assertTrue(results[0].done)
        self.assertEqual(running.wait_exit(), 0)
        running.wait_gone()

    def test_an_idle_server_drains_without_delay(self):
        running = server.start(self, "--shutdown-timeout", "40s")
        begin = time.monotonic()
        running.stop(signal.SIGINT)
        self.assertLess(time.monotonic() - begin, 20)

    def test_a_signal_while_it_starts_ends_it_without_leftovers(self):
        for arguments in ([], server.CLUSTER):
            for moment in ("read", "started", "formed"):
                if not arguments and moment == "started" or arguments and not server.has_mpi():
                    continue
                with self.subTest(arguments=arguments, moment=moment):
                    running = server.start(self, *arguments, ready=False)
                    word = f'"msg":"{moment}'
                    server.wait_until(lambda: word in running.logs(), f"it has {moment}")
                    running.stop()

    def test_what_outlasts_the_shutdown_timeout_gets_a_typed_error(self):
        running = server.start(self, "--shutdown-timeout", "500ms")
        thread, results = self.begin(running)
        running.send(signal.SIGTERM)
        thread.join(server.PATIENCE)
        self.assertEqual(results[0].error and results[0].error["code"], "shutting_down", results)
        self.assertFalse(results[0].done)
        self.assertEqual(running.wait_exit(), 0)

    def test_a_second_signal_ends_at_once(self):
        running = server.start(self, "--shutdown-timeout", "600s")
        thread, results = self.begin(running)
        running.send(signal.SIGINT)
        self.wait_draining(running)
        running.send(signal.SIGINT)
        self.assertEqual(running.wait_exit(20), 130)
        running.wait_gone(20)
        thread.join(server.PATIENCE)
        self.assertFalse(results[0].done, "a cut stream ended like a finished one")
        self.assertIsNone(results[0].finish_reason)


if __name__ == "__main__":
    server.main()
