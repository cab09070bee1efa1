"""What the official SDKs do around an answer, against a real server: retries that it asks for, timeouts,
streams that are left, tools in parallel, the bodies that load generators send."""

import asyncio
import re
import threading
import time
import unittest

import anthropic
import openai

import server

HELLO = [{"role": "user", "content": "Hello"}]
GREETING = "Hello! How can I help you with Python today?"  # greedy, as the demo's README prints it
LONG = {"prompt": "def add(a, b):", "max_tokens": 3500, "temperature": 0,
        "extra_body": {"ignore_eos": True}}


def tool(name):
    return {"type": "function", "function": {
        "name": name, "description": "Says it.", "strict": False,
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}}}}


class Conduct(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.server = server.start(cls, "--max-num-seqs", 1, "--max-waiting", 1)

    def setUp(self):
        self.server.wait_idle()

    def openai(self, **fields):
        return openai.OpenAI(**{"base_url": self.server.url + "/v1", "api_key": "none",
                                "max_retries": 0, "timeout": server.PATIENCE, **fields})

    def anthropic(self, **fields):
        return anthropic.Anthropic(**{"base_url": self.server.url, "api_key": "none",
                                      "max_retries": 0, "timeout": server.PATIENCE, **fields})

    def fill(self):
        """Takes the slot and the place in the queue; returns what gives both back."""
        streams = [self.server.stream(server.endless())]
        server.wait_until(lambda: self.server.load()["running"] == 1, "the first runs")
        waiting = threading.Thread(
            target=self.server.generate, args=(server.endless(max_tokens=2),), daemon=True)
        waiting.start()
        server.wait_until(lambda: self.server.load()["waiting"] == 1, "the second waits")

        def free():
            streams[0].close()
            waiting.join(server.PATIENCE)
        self.addCleanup(free)
        return free

    def refusals(self):
        return sum(value for name, value in self.server.metrics().items()
                   if re.match(r'tessera_http_requests_total\{code="(429|529)"', name))

    def test_a_retry_waits_as_long_as_the_server_says(self):
        # Full at the first try, free again before the second. The client's own first wait is half a
        # second, so an answer that took the whole second obeyed Retry-After.
        for connect, call in (
                (self.openai, lambda client: client.chat.completions.create(
                    model="demo", messages=HELLO, temperature=0).choices[0].message.content),
                (self.anthropic, lambda client: client.messages.create(
                    model="demo", messages=HELLO, max_tokens=100,
                    extra_body={"temperature": 0}).content[0].text)):
            with self.subTest(client=connect.__name__):
                free = self.fill()
                before = self.refusals()
                begin = time.monotonic()
                result = []
                client = connect(max_retries=3)
                thread = threading.Thread(target=lambda: result.append(call(client)), daemon=True)
                thread.start()
                server.wait_until(lambda: self.refusals() > before, "the first try was refused")
                free()
                thread.join(server.PATIENCE)
                self.assertEqual(result, [GREETING])
                self.assertGreaterEqual(time.monotonic() - begin, 1.0)

    def test_without_retries_a_full_server_is_the_clients_error(self):
        free = self.fill()
        with self.assertRaises(openai.RateLimitError) as caught:
            self.openai().chat.completions.create(model="demo", messages=HELLO)
        self.assertGreaterEqual(int(caught.exception.response.headers["retry-after"]), 1)
        with self.assertRaises(anthropic.OverloadedError):  # 529, as that service answers
            self.anthropic().messages.create(model="demo", messages=HELLO, max_tokens=5)
        free()

    def test_a_client_that_times_out_frees_its_sequence(self):
        with self.assertRaises(openai.APITimeoutError):
            self.openai(timeout=0.3).completions.create(model="demo", **LONG)
        self.server.wait_idle()
        with self.assertRaises(anthropic.APITimeoutError):
            self.anthropic(timeout=0.3).messages.create(
                model="demo", max_tokens=3500, messages=HELLO, extra_body={"ignore_eos": True})
        self.server.wait_idle()

    def test_a_stream_that_is_left_frees_its_sequence(self):
        with self.openai().completions.create(model="demo", stream=True, **LONG) as stream:
            for _ in zip(range(3), stream):
                pass
            self.assertEqual(self.server.load()["running"], 1)
        self.server.wait_idle()
        with self.anthropic().messages.stream(
                model="demo", max_tokens=3500, messages=HELLO,
                extra_body={"ignore_eos": True}) as stream:
            for _ in zip(range(3), stream.text_stream):
                pass
        self.server.wait_idle()

    def test_a_cancelled_task_frees_its_sequence(self):
        async def leave():
            client = openai.AsyncOpenAI(base_url=self.server.url + "/v1", api_key="none",
                                        max_retries=0)
            began = asyncio.Event()

            async def read():
                stream = await client.completions.create(model="demo", stream=True, **LONG)
                async for _ in stream:
                    began.set()
            task = asyncio.create_task(read())
            await began.wait()
            task.cancel()
            with self.assertRaises(asyncio.CancelledError):
                await task
            await client.close()
        asyncio.run(leave())
        self.server.wait_idle()

    def test_results_of_parallel_calls_go_back_in_one_turn(self):
        calls = [{"id": f"call_{name}", "type": "function",
                  "function": {"name": name, "arguments": '{"city": "Paris"}'}}
                 for name in ("weather", "time")]
        turns = [{"role": "user", "content": "Weather and time in Paris?"},
                 {"role": "assistant", "content": None, "tool_calls": calls},
                 *({"role": "tool", "tool_call_id": call["id"], "content": "fine"}
                   for call in calls)]
        for parallel in (True, False):
            got = self.openai().chat.completions.create(
                model="demo", messages=turns, tools=[tool("weather"), tool("time")],
                parallel_tool_calls=parallel, max_tokens=20, temperature=0)
            self.assertIn(got.choices[0].finish_reason, ("stop", "length", "tool_calls"))
            if not parallel:
                self.assertLessEqual(len(got.choices[0].message.tool_calls or []), 1)

    def test_every_event_of_the_streaming_helper_comes(self):
        with self.openai().chat.completions.stream(
                model="demo", messages=HELLO, temperature=0, logprobs=True,
                stream_options={"include_usage": True}) as stream:
            types = [event.type for event in stream]
            final = stream.get_final_completion()
        self.assertIn("content.delta", types)
        self.assertIn("content.done", types)
        self.assertIn("logprobs.content.delta", types)
        self.assertEqual(final.choices[0].message.content, GREETING)
        self.assertEqual("".join(entry.token for entry in final.choices[0].logprobs.content
                                 )[:len(GREETING)], GREETING)
        self.assertGreater(final.usage.completion_tokens, 5)

    def test_vllm_bench_serve_finds_what_it_asks_for_before_its_load(self):
        model, = self.server.get("/v1/models").json["data"]
        self.assertEqual((model["id"], model["root"]), ("demo", "demo"))
        # It cuts prompts to their length with the server's tokenizer, there and back.
        body = {"model": "demo", "prompt": "def add(a, b): return a", "add_special_tokens": False}
        tokens = self.server.post("/tokenize", body).json["tokens"]
        prompt = self.server.post("/detokenize", {"model": "demo", "tokens": tokens[:5]}).json["prompt"]
        self.assertTrue(body["prompt"].startswith(prompt))
        names = {name.split("{")[0] for name in self.server.metrics("vllm")}
        self.assertLessEqual({"vllm:spec_decode_num_drafts_total",
                              "vllm:spec_decode_num_draft_tokens_total",
                              "vllm:spec_decode_num_accepted_tokens_total"}, names)

    def test_the_bodies_of_load_generators_are_taken_as_they_are(self):
        ids = self.server.post("/tokenize", {"prompt": "def add(a, b):"}).json["tokens"]
        usage = {"stream": True, "stream_options": {"include_usage": True}}
        text = [{"type": "text", "text": "Hello"}]
        bodies = {
            "/v1/completions": [  # vllm bench serve, with text and with ids; then guidellm
                {"model": "demo", "prompt": "Hello", "repetition_penalty": 1.0, "max_tokens": 4,
                 "logprobs": None, **usage, "ignore_eos": True},
                {"model": "demo", "prompt": ids, "repetition_penalty": 1.0, "max_tokens": 4,
                 "logprobs": None, **usage, "ignore_eos": True, "temperature": 0.0},
                {"model": "demo", "prompt": "Hello", "max_tokens": 4, "ignore_eos": True,
                 "stop": None, "stream": True,
                 "stream_options": {"include_usage": True, "continuous_usage_stats": True}}],
            "/v1/chat/completions": [
                {"model": "demo", "messages": [{"role": "user", "content": text}],
                 "max_completion_tokens": 4, **usage, "ignore_eos": True},
                {"model": "demo", "messages": [{"role": "user", "content": text}],
                 "max_completion_tokens": 4, "max_tokens": 4, "ignore_eos": True, "stop": None,
                 "stream": True,
                 "stream_options": {"include_usage": True, "continuous_usage_stats": True}}]}
        for path, several in bodies.items():
            for body in several:
                with self.subTest(path=path, body=body):
                    stream = self.server.stream(body, path=path)
                    self.addCleanup(stream.close)
                    self.assertEqual(stream.status, 200)
                    events = list(stream.events())
                    self.assertTrue(stream.done)
                    # Read as that tool reads it: the usage comes alone, behind the last choice.
                    self.assertEqual(events[-1]["choices"], [])
                    self.assertEqual(events[-1]["usage"]["completion_tokens"], 4)
                    self.assertTrue(all(event["choices"] for event in events[:-1]))


if __name__ == "__main__":
    server.main()
