"""LiteLLM against a real server, under each provider's name that reaches a server of one's own."""

import os
import sys
import unittest

sys.warnoptions.append("ignore")  # its own models warn about themselves by the dozen
os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"  # or the import asks the network for prices

import litellm

import server

litellm.suppress_debug_info = True
GREETING = "Hello! How can I help you with Python today?"  # greedy, as the demo's README prints it
HELLO = [{"role": "user", "content": "Hello"}]
QUESTION = [{"role": "user", "content": "What is the weather in Paris?"}]
TOOL = {"type": "function", "function": {
    "name": "get_weather", "description": "The weather of a city.",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}}}}
# The base URL that each provider's client wants.
PROVIDERS = {"openai": "/v1", "hosted_vllm": "/v1", "deepseek": "/v1", "anthropic": ""}


class LiteLlm(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.server = server.start(cls)

    def complete(self, provider="openai", **fields):
        request = {"model": f"{provider}/demo", "messages": HELLO, "temperature": 0,
                   "max_tokens": 100, "api_base": self.server.url + PROVIDERS[provider],
                   "api_key": "none", "num_retries": 0, "timeout": server.PATIENCE}
        return litellm.completion(**{**request, **fields})

    def test_every_provider_gives_the_greedy_answer_with_usage(self):
        for provider in PROVIDERS:
            with self.subTest(provider=provider):
                got = self.complete(provider)
                self.assertEqual(got.choices[0].message.content, GREETING)
                self.assertEqual(got.choices[0].finish_reason, "stop")
                self.assertEqual(got.usage.total_tokens,
                                 got.usage.prompt_tokens + got.usage.completion_tokens)

    def test_every_provider_streams_it(self):
        for provider in PROVIDERS:
            with self.subTest(provider=provider):
                chunks = list(self.complete(provider, stream=True,
                                            stream_options={"include_usage": True}))
                pieces = [chunk.choices[0].delta.content or "" for chunk in chunks
                          if chunk.choices]
                self.assertEqual("".join(pieces), GREETING)
                self.assertGreater(len([piece for piece in pieces if piece]), 5)
                rebuilt = litellm.stream_chunk_builder(chunks, messages=HELLO)
                self.assertEqual(rebuilt.choices[0].message.content, GREETING)
                self.assertGreater(rebuilt.usage.completion_tokens, 5)

    def test_a_tool_call_is_parsed_and_a_loop_goes_on(self):
        for provider in PROVIDERS:
            with self.subTest(provider=provider):
                got = self.complete(provider, messages=QUESTION, tools=[TOOL])
                self.assertEqual(got.choices[0].finish_reason, "tool_calls")
                message = got.choices[0].message
                call, = message.tool_calls
                result = {"role": "tool", "tool_call_id": call.id, "content": "sunny"}
                after = self.complete(provider, messages=QUESTION + [message.model_dump(), result],
                                      tools=[TOOL])
                self.assertGreater(after.usage.prompt_tokens, got.usage.prompt_tokens)

    def test_reasoning_has_its_field(self):
        message = self.complete(
            "deepseek", messages=[{"role": "user", "content": "What does len do?"}],
            extra_body={"thinking": {"type": "enabled"}}).choices[0].message
        self.assertTrue(message.reasoning_content)
        self.assertIn("len(x)", message.content)

    def test_sampling_fields_reach_the_server(self):
        fields = {"temperature": 1, "n": 2, "max_tokens": 12, "seed": 7}
        first = [choice.message.content for choice in self.complete(**fields).choices]
        again = [choice.message.content for choice in self.complete(**fields).choices]
        self.assertEqual(len(first), 2)
        self.assertEqual(first, again)
        stopped = self.complete(stop=[" can"]).choices[0].message.content
        self.assertEqual(stopped, GREETING[:GREETING.index(" can")])
        entries = self.complete(logprobs=True, top_logprobs=2).choices[0].logprobs.content
        self.assertEqual(len(entries[0].top_logprobs), 2)

    def test_completions_of_text(self):
        got = litellm.text_completion(
            model="text-completion-openai/demo", prompt="def add(a, b):", max_tokens=8,
            temperature=0, api_base=self.server.url + "/v1", api_key="none")
        self.assertTrue(got.choices[0].text)

    def test_refusals_are_its_own_classes(self):
        image = [{"role": "user", "content": [
            {"type": "image_url", "image_url": {"url": "data:image/png;base64,aGk="}}]}]
        for fields, error, words in (
                ({"model": "openai/no-such-model"}, litellm.NotFoundError, "does not exist"),
                ({"messages": image}, litellm.BadRequestError, "vision"),
                ({"max_tokens": 10**6}, litellm.BadRequestError, "")):
            with self.subTest(**fields):
                with self.assertRaises(error) as caught:
                    self.complete(**fields)
                self.assertIn(words, str(caught.exception))

    def test_a_router_falls_back_to_the_server_that_answers(self):
        def deployment(name, url):
            return {"model_name": name, "litellm_params": {
                "model": "openai/demo", "api_base": url, "api_key": "none", "temperature": 0}}
        router = litellm.Router(
            model_list=[deployment("gone", "http://127.0.0.1:9/v1"),
                        deployment("here", self.server.url + "/v1")],
            fallbacks=[{"gone": ["here"]}], num_retries=0)
        got = router.completion(model="gone", messages=HELLO, max_tokens=100)
        self.assertEqual(got.choices[0].message.content, GREETING)


if __name__ == "__main__":
    server.main()
