"""OpenAI's responses API by the real `openai` client against a real server."""

import json
import unittest

import openai

import server

GREETING = "Hello! How can I help you with Python today?"  # greedy, as the demo's README prints it
QUESTION = "What does len do?"
THOUGHT = "This is a simple question. I can answer it directly."
ANSWER = "`len(x)` returns the number of items in `x`."
TOOL = {"type": "function", "name": "get_weather", "description": "The weather of a city.",
        "strict": False,
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}},
                       "required": ["city"]}}


class ResponsesClient(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.server = server.start(cls)
        cls.client = openai.OpenAI(base_url=cls.server.url + "/v1", api_key="none", max_retries=0,
                                   timeout=server.PATIENCE)
        cls.addClassCleanup(cls.client.close)

    def respond(self, **fields):
        request = {"model": "demo", "input": "Hello", "temperature": 0, "max_output_tokens": 100}
        return self.client.responses.create(**{**request, **fields})

    def test_a_response_is_the_greedy_answer_with_usage(self):
        got = self.respond()
        self.assertEqual(got.output_text, GREETING)
        self.assertEqual((got.status, got.store, got.error), ("completed", False, None))
        self.assertEqual(got.usage.total_tokens, got.usage.input_tokens + got.usage.output_tokens)
        self.assertEqual(got.usage.input_tokens_details.host_cached_tokens, 0)

    def test_the_stream_helper_accumulates_the_whole_answer(self):
        with self.client.responses.stream(model="demo", input="Hello", temperature=0,
                                          max_output_tokens=100) as stream:
            events = list(stream)
            final = stream.get_final_response()
        self.assertEqual([event.sequence_number for event in events], list(range(len(events))))
        deltas = [event.delta for event in events if event.type == "response.output_text.delta"]
        self.assertGreater(len(deltas), 5)
        self.assertEqual("".join(deltas), GREETING)
        self.assertEqual(final.output_text, GREETING)
        self.assertEqual(final.usage.output_tokens, self.respond().usage.output_tokens)

    def test_reasoning_is_an_item_before_the_message(self):
        fields = {"input": QUESTION, "reasoning": {"effort": "high"}}
        whole = self.respond(**fields)
        self.assertEqual([item.type for item in whole.output], ["reasoning", "message"])
        self.assertEqual(whole.output[0].content[0].text, THOUGHT)
        self.assertEqual(whole.output_text, ANSWER)
        self.assertGreater(whole.usage.output_tokens_details.reasoning_tokens, 0)
        events = list(self.respond(stream=True, **fields))
        thought = "".join(event.delta for event in events
                          if event.type == "response.reasoning_text.delta")
        self.assertEqual(thought, THOUGHT)
        self.assertEqual(events[-1].type, "response.completed")
        self.assertEqual(events[-1].response.output_text, ANSWER)

    def test_a_conversation_continues_from_its_own_items(self):
        history = [{"role": "user", "content": "Hello"}, *self.respond().output,
                   {"role": "user", "content": "What is a list in Python?"}]
        self.assertEqual(self.respond(input=history).output_text,
                         "A list is an ordered, mutable sequence of items. You write it with "
                         "square brackets: `[1, 2, 3]`.")

    def test_a_function_call_can_be_answered(self):
        fields = {"input": "What is the weather in Paris?", "tools": [TOOL]}
        calls = [item for item in self.respond(**fields).output if item.type == "function_call"]
        self.assertEqual(len(calls), 1)  # whose tool the demo model often gets wrong
        with self.client.responses.stream(model="demo", temperature=0, max_output_tokens=100,
                                          **fields) as stream:
            streamed = [item for item in stream.get_final_response().output
                        if item.type == "function_call"]
        self.assertEqual([(call.name, call.arguments) for call in streamed],
                         [(call.name, call.arguments) for call in calls])
        json.loads(calls[0].arguments)
        turns = [{"role": "user", "content": fields["input"]}, *calls,
                 {"type": "function_call_output", "call_id": calls[0].call_id, "output": "sunny"}]
        self.assertGreater(self.respond(input=turns, tools=[TOOL]).usage.output_tokens, 0)

    def test_the_limit_makes_a_response_incomplete(self):
        got = self.respond(max_output_tokens=3)
        self.assertEqual(got.status, "incomplete")
        self.assertEqual(got.incomplete_details.reason, "max_output_tokens")
        self.assertEqual(got.usage.output_tokens, 3)

    def test_what_needs_memory_or_cannot_be_enforced_is_a_typed_refusal(self):
        for fields in ({"background": True},
                       {"tools": [{"type": "web_search"}]},
                       {"text": {"format": {"type": "json_schema", "name": "x",
                                            "schema": {"not": {}}}}}):
            for stream in (False, True):
                with self.subTest(**fields, stream=stream):
                    with self.assertRaises(openai.BadRequestError) as caught:
                        self.respond(stream=stream, **fields)
                    self.assertTrue(caught.exception.param)
                    self.assertTrue(caught.exception.code)

    def test_logprobs_are_of_the_tokens_of_the_text(self):
        fields = {"include": ["message.output_text.logprobs"], "top_logprobs": 2}
        part = self.respond(**fields).output[-1].content[0]
        self.assertEqual("".join(one.token for one in part.logprobs), part.text)
        self.assertTrue(all(len(one.top_logprobs) == 2 for one in part.logprobs))
        with self.client.responses.stream(model="demo", temperature=0, max_output_tokens=100,
                                          input="Hello", **fields) as stream:
            deltas = [event for event in stream if event.type == "response.output_text.delta"]
        self.assertEqual([one.logprob for event in deltas for one in event.logprobs],
                         [one.logprob for one in part.logprobs])

    def test_a_response_before_is_not_found(self):
        with self.assertRaises(openai.NotFoundError) as caught:
            self.respond(previous_response_id="resp_1")
        self.assertEqual(caught.exception.code, "previous_response_not_found")


if __name__ == "__main__":
    server.main()
