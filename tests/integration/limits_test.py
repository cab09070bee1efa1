"""What bounds a server: the queue, deadlines, clients that leave, keys."""

import threading
import unittest

import openai

import server


class Limits(unittest.TestCase):
    def test_a_full_queue_answers_429_with_retry_after(self):
        small = server.start(self, "--max-num-seqs", 1, "--max-waiting", 1)
        running = small.stream(server.endless())
        self.addCleanup(running.close)
        server.wait_until(lambda: small.load()["running"] == 1, "the first request runs")
        waiting = threading.Thread(
            target=small.generate, args=(server.endless(max_tokens=2),), daemon=True)
        waiting.start()
        server.wait_until(lambda: small.load()["waiting"] == 1, "the second request waits")
        for stream in (False, True):
            reply = small.post("/v1/completions", server.endless(max_tokens=2, stream=stream))
            self.assertEqual(reply.status, 429, reply)
            self.assertEqual(reply.error["code"], "overloaded")
            self.assertEqual(reply.error["type"], "rate_limit_error")
            self.assertGreaterEqual(int(reply.headers["retry-after"]), 1)
            self.assertEqual(reply.headers["x-should-retry"], "true")
        client = openai.OpenAI(base_url=small.url + "/v1", api_key="none", max_retries=0)
        with self.assertRaises(openai.RateLimitError):
            client.completions.create(model="demo", prompt="x", max_tokens=1)
        # Several choices need several places.
        running.close()
        waiting.join(server.PATIENCE)
        self.assertFalse(waiting.is_alive())
        small.wait_idle()
        self.assertEqual(small.post("/v1/completions", server.endless(max_tokens=2, n=2)).status, 429)
        self.assertEqual(small.post("/v1/completions", server.endless(max_tokens=2)).status, 200)
        small.stop()

    def test_a_deadline_ends_the_request_with_a_typed_error_and_frees_its_blocks(self):
        quick = server.start(self, "--request-timeout", "1s")
        body = server.endless()
        reply = quick.post("/v1/completions", body)
        self.assertEqual(reply.status, 504, reply)
        self.assertEqual(reply.error["code"], "deadline")
        self.assertEqual(reply.error["type"], "timeout_error")
        streamed = quick.generate(body)
        self.assertEqual(streamed.status, 200)
        self.assertEqual(streamed.error["code"], "deadline", streamed)
        self.assertFalse(streamed.done, "[DONE] after a truncation")
        self.assertIsNone(streamed.finish_reason)
        # The client's own budget, where that is shorter.
        own = quick.generate(body, headers={"x-request-timeout-ms": "200"})
        self.assertEqual(own.error["code"], "deadline", own)
        self.assertLess(own.seconds, server.PATIENCE)
        quick.wait_idle()
        self.assertTrue(quick.generate(server.endless(max_tokens=3)).done)
        quick.stop()

    def test_a_deadline_holds_in_the_queue_too(self):
        small = server.start(self, "--max-num-seqs", 1)
        running = small.stream(server.endless())
        self.addCleanup(running.close)
        server.wait_until(lambda: small.load()["running"] == 1, "the first request runs")
        queued = small.generate(server.endless(), headers={"x-request-timeout-ms": "300"})
        self.assertEqual(queued.error["code"], "deadline", queued)
        self.assertEqual(queued.tokens, [])
        self.assertEqual(small.load()["running"], 1)

    def test_a_client_that_leaves_frees_its_blocks(self):
        here = server.start(self)
        for stream in (True, False):
            if stream:
                one = here.stream(server.endless(n=4, seed=1, temperature=1))
                next(one.events())
            else:
                connection = here.connect()
                connection.request("POST", "/v1/completions",
                                   b'{"prompt": "x", "max_tokens": 4000, "ignore_eos": true, "n": 4}',
                                   {"Content-Type": "application/json"})
            server.wait_until(lambda: here.load()["running"] == 4, "four choices run")
            self.assertGreater(here.load()["kv_blocks_used"], 0)
            (one if stream else connection).close()
            here.wait_idle()
        here.stop()

    def test_preempted_sequences_give_the_same_tokens(self):
        # 40 blocks of 16 tokens hold two of these sequences to their ends, not four.
        tight = server.start(self, "--num-kv-blocks", 40, "--max-model-len", 512)
        bodies = [server.endless(prompt=f"class C{i}:\n", max_tokens=200) for i in range(4)]
        alone = [tight.generate(body) for body in bodies[:2]]
        together = tight.generate_all(bodies)
        for one in together:
            self.assertEqual(one.finish_reason, "length", one)
            self.assertEqual(len(one.tokens), 200)
        self.assertEqual([one.tokens for one in alone], [one.tokens for one in together[:2]])
        tight.wait_idle()


class Keys(unittest.TestCase):
    def check(self, running, key):
        for path in ("/v1/models", "/version", "/load"):
            self.assertEqual(running.get(path).status, 401, path)
        for path in ("/v1/chat/completions", "/v1/completions", "/tokenize", "/detokenize"):
            reply = running.post(path, {})
            self.assertEqual(reply.status, 401, path)
            self.assertEqual(reply.error["code"], "invalid_api_key")
        for path in ("/livez", "/readyz", "/health"):
            self.assertEqual(running.get(path).status, 200, path)
        for wrong in (key + "x", key[:-1], ""):
            headers = {"Authorization": f"Bearer {wrong}"}
            self.assertEqual(running.get("/v1/models", headers=headers).status, 401)
        for headers in ({"Authorization": f"Bearer {key}"}, {"x-api-key": key}):
            self.assertEqual(running.get("/v1/models", headers=headers).status, 200)
        client = openai.OpenAI(base_url=running.url + "/v1", api_key=key, max_retries=0)
        self.assertEqual(client.models.list().data[0].id, "demo")
        with self.assertRaises(openai.AuthenticationError):
            client.with_options(api_key="wrong").models.list()
        self.assertNotIn(key, running.logs())

    def test_of_the_command_line(self):
        self.check(server.start(self, "--api-key", "a-long-and-secret-key"), "a-long-and-secret-key")

    def test_of_the_environment(self):
        running = server.start(self, environment={"TESSERA_API_KEY": "another-secret-key"})
        self.check(running, "another-secret-key")

    def test_an_address_beyond_loopback_needs_one(self):
        refused = server.run("serve", server.MODEL, "--host", "0.0.0.0", "--port", "0")
        self.assertEqual(refused.returncode, 2, refused)
        self.assertIn("--api-key", refused.stderr)


if __name__ == "__main__":
    server.main()
