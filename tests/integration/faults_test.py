"""kill -9 and kill -STOP of shards and workers, kill -9 of the server, while streams run.

Every stream ends in time, with its last token or with a typed error, and what it got until then is a
prefix of the run without the fault. The server says that it is not ready until the new group has run a
step, and then gives the right tokens again.
"""

import os
import signal
import threading
import time
import unittest

import server

DEADLINE = 100  # seconds: --request-timeout of these servers, and more than any detection
LENGTH = 300
TYPED = {"worker_lost", "engram_unavailable", "not_ready", "deadline"}


def bodies():
    made = [server.endless(prompt=f"class C{i}:\n", max_tokens=LENGTH) for i in range(8)]
    for i in range(4, 8):
        made[i].update(temperature=0.9, seed=i)
    return made


@unittest.skipUnless(server.has_mpi(), "mpirun is not installed")
class Faults(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.server = server.start(cls, *server.CLUSTER, "--request-timeout", f"{DEADLINE}s",
                                  "--heartbeat-timeout", "3s")
        cls.expected = cls.server.generate_all(bodies())

    def setUp(self):
        server.wait_until(lambda: self.server.get("/readyz").status == 200, "it is ready")
        for one in self.expected:
            self.assertTrue(one.done and len(one.tokens) == LENGTH, one)

    def kill_while_streams_run(self, *victims, number=signal.SIGKILL):
        tokens = threading.Semaphore(0)
        results = []
        streams = threading.Thread(daemon=True, target=lambda: results.extend(
            self.server.generate_all(bodies(), on_token=tokens.release)))
        streams.start()
        for _ in range(8 * 10):
            self.assertTrue(tokens.acquire(timeout=server.PATIENCE), "no tokens")
        self.watch_readiness()
        for victim in victims:
            os.kill(victim, number)
        streams.join(DEADLINE + 20)
        self.assertFalse(streams.is_alive(), f"a stream hangs\n{self.server.logs()}")
        return results

    def watch_readiness(self):
        """Collects the statuses of /readyz from now on, in order and without repeats."""
        self.seen = []
        self.watching = True

        def watch():
            while self.watching:
                status = self.server.get("/readyz").status
                if not self.seen or self.seen[-1] != status:
                    self.seen.append(status)
                time.sleep(0.01)
        watcher = threading.Thread(target=watch, daemon=True)
        watcher.start()

        def end():
            self.watching = False
            watcher.join(server.PATIENCE)
        self.addCleanup(end)

    def check_readiness(self):
        server.wait_until(lambda: 503 in self.seen, "it is not ready")
        server.wait_until(lambda: self.seen[-1] == 200, "it is ready again")

    def check(self, results):
        self.assertEqual(len(results), len(self.expected))
        for i, (one, whole) in enumerate(zip(results, self.expected)):
            self.assertEqual(one.tokens, whole.tokens[:len(one.tokens)], f"stream {i}: wrong token")
            if one.error is None:
                self.assertTrue(one.done and len(one.tokens) == LENGTH, f"stream {i}: {one}")
            else:
                self.assertIn(one.error["code"], TYPED, f"stream {i}: {one}")
                self.assertFalse(one.done, f"stream {i}: [DONE] after a truncation")
                self.assertIsNone(one.finish_reason)
            self.assertLess(one.seconds, DEADLINE + 10)
        self.assertTrue(any(one.error for one in results), "the fault hit nobody")
        self.check_readiness()
        again = self.server.generate_all(bodies())
        for i, (one, whole) in enumerate(zip(again, self.expected)):
            self.assertEqual(one.tokens, whole.tokens, f"stream {i} after the fault: {one}")
        self.server.wait_idle()
        server.wait_until(lambda: len(self.server.children("worker")) == 4, "4 workers run")
        server.wait_until(lambda: len(self.server.children("engram")) == 2, "2 shards run")

    def test_a_worker_is_killed(self):
        self.check(self.kill_while_streams_run(self.server.children("worker")[-1]))

    def test_a_shard_is_killed(self):
        self.check(self.kill_while_streams_run(self.server.children("engram")[0]))

    def test_mpirun_is_killed(self):
        self.check(self.kill_while_streams_run(self.server.children("mpirun")[0]))

    def test_two_workers_and_a_shard_are_killed_and_more_while_it_recovers(self):
        victims = self.server.children("worker")[1:3] + self.server.children("engram")[1:]
        results = self.kill_while_streams_run(*victims)
        for role in ("worker", "engram"):
            for victim in server.wait_until(lambda: self.server.children(role), role)[:1]:
                os.kill(victim, signal.SIGKILL)
        self.check(results)

    def test_a_worker_hangs(self):
        victim = self.server.children("worker")[2]
        self.check(self.kill_while_streams_run(victim, number=signal.SIGSTOP))
        self.assertNotIn(victim, self.server.processes(), "the hung process is still there")

    def test_a_shard_hangs_and_is_replaced_with_the_next_group(self):
        # Its rows are mapped by the workers, so that nobody needs it until a group is formed.
        hung = self.server.children("engram")[1]
        os.kill(hung, signal.SIGSTOP)
        again = self.server.generate_all(bodies())
        self.assertEqual([one.tokens for one in again], [one.tokens for one in self.expected])
        self.check(self.kill_while_streams_run(self.server.children("worker")[0]))
        self.assertNotIn(hung, self.server.processes(), "the hung process is still there")

    def test_a_worker_is_killed_while_nothing_runs(self):
        self.server.wait_idle()
        self.watch_readiness()
        os.kill(self.server.children("worker")[0], signal.SIGKILL)
        self.check_readiness()
        again = self.server.generate(bodies()[0])
        self.assertEqual(again.tokens, self.expected[0].tokens)


@unittest.skipUnless(server.has_mpi(), "mpirun is not installed")
class Replicas(unittest.TestCase):
    def check(self, source):
        running = server.start(self, "--workers", 2, "--comm", "mpi", "--engram-shards", 2,
                               "--engram-replicas", 2, "--engram-source", source)
        requests = bodies()[2:6]
        expected = running.generate_all(requests)
        shards = running.children("engram")
        self.assertEqual(len(shards), 4)
        for number in (signal.SIGKILL, signal.SIGSTOP):
            begun = threading.Event()
            results = []
            streams = threading.Thread(daemon=True, target=lambda: results.extend(
                running.generate_all(requests, on_token=begun.set)))
            streams.start()
            self.assertTrue(begun.wait(server.PATIENCE))
            # Of different shards, so that one replica of each is left.
            os.kill(shards[0] if number == signal.SIGKILL else shards[-1], number)
            streams.join(server.PATIENCE)
            self.assertEqual([one.tokens for one in results], [one.tokens for one in expected],
                             f"{number}: {results}\n{running.logs()}")
            self.assertTrue(all(one.done for one in results))
        running.stop()

    def test_streams_survive_a_mapped_shard_with_a_replica(self):
        self.check("shm")

    def test_streams_survive_a_remote_shard_with_a_replica(self):
        self.check("remote")


@unittest.skipUnless(server.has_mpi(), "mpirun is not installed")
class Ends(unittest.TestCase):
    def test_sigterm_ends_every_process(self):
        running = server.start(self, *server.CLUSTER)
        self.assertGreater(len(running.processes()), 6)
        running.stop()

    def test_a_killed_server_leaves_no_orphans(self):
        running = server.start(self, *server.CLUSTER)
        stream = running.stream(server.endless())
        self.addCleanup(stream.close)
        next(stream.events())
        running.send(signal.SIGKILL)
        self.assertEqual(running.wait_exit(), -signal.SIGKILL)
        running.wait_gone()
        self.assertEqual([event for event in stream.events() if "error" in event], [])
        self.assertFalse(stream.done, "a cut stream ended like a finished one")

    def test_a_second_signal_ends_every_process_at_once(self):
        running = server.start(self, *server.CLUSTER)
        stream = running.stream(server.endless())
        self.addCleanup(stream.close)
        next(stream.events())
        running.send(signal.SIGINT)
        server.wait_until(lambda: running.get("/readyz").status == 503, "it drains")
        running.send(signal.SIGINT)
        self.assertEqual(running.wait_exit(20), 130)
        running.wait_gone(20)


if __name__ == "__main__":
    server.main()
