"""What DeepSeek's API adds to OpenAI's, by the real `openai` client with DeepSeek's base URLs."""

import unittest

import openai

import server

GREETING = "Hello! How can I help you with Python today?"  # greedy, as the demo's README prints it
HELLO = [{"role": "user", "content": "Hello"}]
QUESTION = [{"role": "user", "content": "What does len do?"}]
THOUGHT = "This is a simple question. I can answer it directly."
ANSWER = "`len(x)` returns the number of items in `x`."


class DeepSeekClient(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.server = server.start(cls)
        cls.client = cls.connect("")
        cls.beta = cls.connect("/beta")

    @classmethod
    def connect(cls, path):
        client = openai.OpenAI(base_url=cls.server.url + path, api_key="none", max_retries=0,
                               timeout=server.PATIENCE)
        cls.addClassCleanup(client.close)
        return client

    def chat(self, client=None, **fields):
        request = {"model": "demo", "messages": HELLO, "temperature": 0, "max_tokens": 100}
        return (client or self.client).chat.completions.create(**{**request, **fields})

    def thinking(self, kind, **fields):
        return self.chat(messages=QUESTION, extra_body={"thinking": {"type": kind}}, **fields)

    def test_the_thinking_switch_gives_and_takes_reasoning_content(self):
        message = self.thinking("enabled").choices[0].message
        self.assertEqual((message.reasoning_content, message.content), (THOUGHT, ANSWER))
        plain = self.thinking("disabled").choices[0].message
        self.assertIsNone(getattr(plain, "reasoning_content", None))
        self.assertTrue(plain.content)

    def test_reasoning_content_may_come_back_in_the_history(self):
        for reasoning in (THOUGHT, ""):
            history = QUESTION + [{"role": "assistant", "content": ANSWER,
                                   "reasoning_content": reasoning}] + HELLO
            self.assertEqual(self.chat(messages=history).choices[0].message.content, GREETING)

    def test_a_prefix_is_continued(self):
        begun = GREETING[:GREETING.index(" can")]
        prefix = {"role": "assistant", "content": begun, "prefix": True}
        got = self.chat(client=self.beta, messages=HELLO + [prefix])
        self.assertEqual(begun + got.choices[0].message.content, GREETING)
        for bad in ([prefix] + HELLO, [{**HELLO[0], "prefix": True}]):
            with self.assertRaises(openai.BadRequestError):
                self.chat(client=self.beta, messages=bad)

    def test_a_suffix_puts_the_prompt_around_a_hole(self):
        prompt, suffix = "def add(a, b):\n", "\n\nprint(add(1, 2))"
        got = self.beta.completions.create(model="demo", prompt=prompt, suffix=suffix,
                                           temperature=0, max_tokens=8)
        count = self.server.post("/tokenize", {"prompt": "<｜fim▁begin｜>" + prompt + "<｜fim▁hole｜>" +
                                               suffix + "<｜fim▁end｜>"}).json["count"]
        self.assertEqual(got.usage.prompt_tokens, count)
        self.assertGreater(got.usage.completion_tokens, 0)

    def test_usage_tells_hits_and_misses_of_the_prompt_cache(self):
        for usage in (self.chat().usage,
                      list(self.chat(stream=True, stream_options={"include_usage": True}))[-1].usage):
            self.assertEqual(usage.prompt_cache_hit_tokens + usage.prompt_cache_miss_tokens,
                             usage.prompt_tokens)
            self.assertEqual(usage.prompt_cache_hit_tokens, usage.prompt_tokens_details.cached_tokens)
            self.assertEqual(usage.prompt_tokens_details.host_cached_tokens, 0)

    def test_what_the_server_lacks_says_what_it_has(self):
        with self.assertRaises(openai.NotFoundError) as caught:
            self.client.embeddings.create(model="demo", input="x")
        self.assertEqual(caught.exception.code, "unsupported_endpoint")
        self.assertIn("/v1/chat/completions", str(caught.exception))


if __name__ == "__main__":
    server.main()
