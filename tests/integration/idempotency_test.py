"""Idempotency keys against a running server: one generation, one answer, whoever asks for it again."""

import threading
import unittest

import openai

import server

KEY = "Idempotency-Key"


class Idempotency(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.server = server.start(cls, "--idempotency-max-keys", 8, "--idempotency-keep", "1h")

    def tokens(self, idle=True):
        if idle:
            self.server.wait_idle()  # what an earlier test left may still be counted
        return self.server.metrics()["tessera_generation_tokens_total"]

    def test_the_openai_client_gets_the_same_answer_again(self):
        client = openai.OpenAI(base_url=self.server.url + "/v1", api_key="none", max_retries=0)
        before = self.tokens()

        def ask(key, **fields):
            return client.chat.completions.create(
                model="demo", messages=[{"role": "user", "content": "Hello"}], temperature=1, max_tokens=12,
                extra_headers={KEY: key}, extra_body={"ignore_eos": True}, **fields)
        first = ask("sdk")
        self.assertEqual(ask("sdk"), first)
        self.assertNotEqual(ask("other").id, first.id)
        self.assertEqual(self.tokens() - before, 24)
        with self.assertRaises(openai.ConflictError) as caught:
            ask("sdk", seed=1)
        self.assertEqual(caught.exception.code, "idempotency_key_reused")
        stream = [chunk.model_dump() for chunk in ask("stream", stream=True)]
        self.assertGreater(len(stream), 2)
        self.assertEqual([chunk.model_dump() for chunk in ask("stream", stream=True)], stream)

    def test_a_request_that_lost_its_client_is_answered_to_the_one_that_comes_again(self):
        body = server.endless(200)
        before = self.tokens()
        connection = self.server.connect()
        connection.request("POST", "/v1/completions", server.json.dumps(body).encode(), {KEY: "lost"})
        server.wait_until(lambda: self.tokens(idle=False) > before, "the request runs")
        connection.close()
        replies = [None] * 3

        def again(index):
            replies[index] = self.server.post("/v1/completions", body, headers={KEY: "lost"})
        threads = [threading.Thread(target=again, args=(i,)) for i in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for reply in replies:
            self.assertEqual(reply.status, 200)
            self.assertEqual(reply.headers["idempotent-replayed"], "true")
            self.assertEqual(reply.body, replies[0].body)
        self.assertEqual(replies[0].json["usage"]["completion_tokens"], 200)
        self.assertEqual(self.tokens() - before, 200)

    def test_a_stream_whose_client_leaves_is_stopped_and_may_be_asked_for_again(self):
        stream = self.server.stream(server.endless(), headers={KEY: "stopped"})
        next(stream.events())
        stream.close()
        self.server.wait_idle()
        again = self.server.stream(server.endless(), headers={KEY: "stopped"})
        self.assertEqual(again.status, 200)
        self.assertNotIn("idempotent-replayed", again.headers)
        again.close()


if __name__ == "__main__":
    server.main()
