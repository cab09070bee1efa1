"""The real `anthropic` client against a real server: what a user's program does, answer by answer."""

import unittest

import anthropic

import server

# The client has no argument for it any more, the API does.
GREEDY = {"temperature": 0}
HELLO = [{"role": "user", "content": "Hello"}]
GREETING = "Hello! How can I help you with Python today?"  # greedy, as the demo's README prints it
QUESTION = [{"role": "user", "content": "What does len do?"}]
THOUGHT = "This is a simple question. I can answer it directly."
ANSWER = "`len(x)` returns the number of items in `x`."
TOOL = {"name": "get_time", "description": "The time of day.",
        "input_schema": {"type": "object", "properties": {"zone": {"type": "string"}}}}
# A tool that the demo model was trained with: of others its arguments may never end.
WEATHER = {"name": "get_weather", "description": "The weather of a city.",
           "input_schema": {"type": "object", "properties": {"city": {"type": "string"}},
                            "required": ["city"]}}


class AnthropicClient(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.server = server.start(cls, "--api-key", "secret")
        cls.client = cls.connect("secret")

    @classmethod
    def connect(cls, key, path=""):
        client = anthropic.Anthropic(base_url=cls.server.url + path, api_key=key, max_retries=0,
                                     timeout=server.PATIENCE)
        cls.addClassCleanup(client.close)
        return client

    def message(self, **fields):
        request = {"model": "demo", "messages": HELLO, "max_tokens": 100, "extra_body": GREEDY}
        return self.client.messages.create(**{**request, **fields})

    def test_a_message_is_the_greedy_answer_with_usage(self):
        got = self.message()
        self.assertEqual([block.type for block in got.content], ["text"])
        self.assertEqual(got.content[0].text, GREETING)
        self.assertEqual((got.type, got.role, got.model), ("message", "assistant", "demo"))
        self.assertEqual((got.stop_reason, got.stop_sequence), ("end_turn", None))
        self.assertTrue(got.id.startswith("msg_"))
        self.assertGreater(got.usage.output_tokens, 5)
        self.assertEqual(got.usage.host_cached_tokens, 0)

    def test_counted_tokens_are_those_that_a_message_costs(self):
        for fields in ({}, {"system": "Be brief."}, {"tools": [TOOL]},
                       {"thinking": {"type": "enabled", "budget_tokens": 1024}}):
            with self.subTest(**fields):
                counted = self.client.messages.count_tokens(model="demo", messages=HELLO, **fields)
                usage = self.message(max_tokens=1, **fields).usage
                self.assertEqual(counted.input_tokens,
                                 usage.input_tokens + usage.cache_read_input_tokens)

    def test_the_stream_helper_accumulates_the_whole_answer(self):
        whole = self.message()
        with self.client.messages.stream(model="demo", messages=HELLO, extra_body=GREEDY,
                                         max_tokens=100) as stream:
            pieces = list(stream.text_stream)
            final = stream.get_final_message()
        self.assertGreater(len(pieces), 5)
        self.assertEqual("".join(pieces), GREETING)
        self.assertEqual(final.content[0].text, GREETING)
        self.assertEqual(final.stop_reason, "end_turn")
        self.assertEqual(final.usage.output_tokens, whole.usage.output_tokens)
        self.assertEqual(final.usage.input_tokens + final.usage.cache_read_input_tokens,
                         whole.usage.input_tokens + whole.usage.cache_read_input_tokens)

    def test_raw_events_come_in_the_order_of_the_reference(self):
        types = [event.type for event in self.message(stream=True)]
        self.assertEqual(types[0], "message_start")
        middle = [one for one in types[1:] if one not in ("ping", "content_block_delta")]
        self.assertEqual(middle, ["content_block_start", "content_block_stop", "message_delta",
                                  "message_stop"])

    def test_thinking_is_a_block_before_the_text(self):
        fields = {"messages": QUESTION, "max_tokens": 200,
                  "thinking": {"type": "enabled", "budget_tokens": 1024}}
        whole = self.message(**fields)
        self.assertEqual([block.type for block in whole.content], ["thinking", "text"])
        self.assertEqual(whole.content[0].thinking, THOUGHT)
        self.assertTrue(whole.content[0].signature)
        self.assertEqual(whole.content[1].text, ANSWER)
        with self.client.messages.stream(model="demo", extra_body=GREEDY, **fields) as stream:
            streamed = stream.get_final_message()
        self.assertEqual([block.type for block in streamed.content], ["thinking", "text"])
        self.assertEqual(streamed.content[0].thinking, THOUGHT)
        self.assertTrue(streamed.content[0].signature)
        self.assertEqual(streamed.content[1].text, ANSWER)

    def test_an_answer_can_be_sent_back_with_tool_results(self):
        first = self.message(messages=QUESTION, max_tokens=200,
                             thinking={"type": "enabled", "budget_tokens": 1024})
        call = {"type": "tool_use", "id": "toolu_1", "name": "get_time", "input": {"zone": "UTC"}}
        result = {"type": "tool_result", "tool_use_id": "toolu_1",
                  "content": [{"type": "text", "text": "12:00"}]}
        messages = QUESTION + [{"role": "assistant", "content": [*first.content, call]},
                               {"role": "user", "content": [result]}]
        got = self.message(messages=messages, tools=[TOOL], max_tokens=4)
        self.assertGreater(got.usage.output_tokens, 0)

    def test_a_tool_use_block_can_be_answered(self):
        question = [{"role": "user", "content": "What is the weather in Paris?"}]
        whole = self.message(messages=question, tools=[WEATHER])
        self.assertEqual(whole.stop_reason, "tool_use")
        call = whole.content[-1]  # whose city the demo model often gets wrong
        self.assertEqual(call.type, "tool_use")
        with self.client.messages.stream(model="demo", messages=question, tools=[WEATHER],
                                         max_tokens=100, extra_body=GREEDY) as stream:
            streamed = stream.get_final_message()
        self.assertEqual(streamed.stop_reason, "tool_use")
        self.assertEqual((streamed.content[-1].name, streamed.content[-1].input),
                         (call.name, call.input))
        result = {"type": "tool_result", "tool_use_id": call.id, "content": "sunny"}
        turns = question + [{"role": "assistant", "content": whole.content},
                            {"role": "user", "content": [result]}]
        self.assertGreater(self.message(messages=turns, tools=[WEATHER]).usage.output_tokens, 0)

    def test_stop_sequences_and_limits_name_themselves(self):
        stopped = self.message(stop_sequences=[" can"])
        self.assertEqual(stopped.content[0].text, GREETING[:GREETING.index(" can")])
        self.assertEqual((stopped.stop_reason, stopped.stop_sequence), ("stop_sequence", " can"))
        limited = self.message(max_tokens=3)
        self.assertEqual(limited.stop_reason, "max_tokens")
        self.assertEqual(limited.usage.output_tokens, 3)

    def test_a_begun_answer_is_continued(self):
        begun = GREETING[:GREETING.index(" can")]
        got = self.message(messages=HELLO + [{"role": "assistant", "content": begun}])
        self.assertEqual(begun + got.content[0].text, GREETING)

    def test_system_text_reaches_the_prompt(self):
        plain = self.client.messages.count_tokens(model="demo", messages=HELLO)
        for system in ("Be brief.", [{"type": "text", "text": "Be brief."}]):
            with_system = self.client.messages.count_tokens(model="demo", messages=HELLO,
                                                            system=system)
            self.assertGreater(with_system.input_tokens, plain.input_tokens)

    def test_errors_are_the_clients_own_classes_and_carry_the_request_id(self):
        image = {"type": "image", "source": {"type": "base64", "media_type": "image/png",
                                             "data": "aGk="}}
        for fields, error in [
                ({"model": "no-such-model"}, anthropic.NotFoundError),
                ({"max_tokens": 0}, anthropic.BadRequestError),
                ({"max_tokens": 10**6}, anthropic.BadRequestError),
                ({"messages": [{"role": "user", "content": [image]}]}, anthropic.BadRequestError),
                ({"tool_choice": {"type": "any"}}, anthropic.BadRequestError)]:
            for stream in (False, True):
                with self.subTest(**fields, stream=stream):
                    with self.assertRaises(error) as caught:
                        self.message(stream=stream, **fields)
                    body = caught.exception.body
                    self.assertEqual(body["type"], "error")
                    self.assertEqual(body["request_id"], caught.exception.request_id)
        with self.assertRaises(anthropic.AuthenticationError):
            self.connect("wrong").messages.create(model="demo", messages=HELLO, max_tokens=1)

    def test_answers_carry_the_request_id_that_the_client_reads(self):
        self.assertTrue(self.message(max_tokens=1)._request_id.startswith("req-"))

    def test_deepseeks_base_path_and_bearer_keys_work(self):
        got = self.connect("secret", "/anthropic").messages.create(
            model="demo", messages=HELLO, max_tokens=1)
        self.assertEqual(got.type, "message")
        bearer = anthropic.Anthropic(base_url=self.server.url, auth_token="secret", max_retries=0)
        self.addCleanup(bearer.close)
        self.assertEqual(bearer.messages.count_tokens(model="demo", messages=HELLO).input_tokens,
                         got.usage.input_tokens + got.usage.cache_read_input_tokens)

    def test_models_are_listed_and_retrieved(self):
        self.assertEqual([model.id for model in self.client.models.list()], ["demo"])
        self.assertEqual(self.client.models.retrieve("demo").type, "model")

    def test_a_client_that_leaves_frees_its_request(self):
        with self.client.messages.stream(model="demo", messages=HELLO, max_tokens=3000,
                                         extra_body={"ignore_eos": True}) as stream:
            next(iter(stream.text_stream))
        load = lambda: self.server.get("/load", headers={"x-api-key": "secret"}).json
        server.wait_until(lambda: load()["running"] == 0, "the request is gone")


if __name__ == "__main__":
    server.main()
