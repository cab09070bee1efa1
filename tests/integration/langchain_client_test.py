"""LangChain against a real server, over both of its dialects: answers, streams, tools, refusals."""

import os
import unittest

os.environ["LANGSMITH_TRACING"] = "false"  # nothing is reported anywhere

import langchain_anthropic
import langchain_openai
from langchain_core.messages import AIMessage, HumanMessage, ToolMessage
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.tools import tool

import server

GREETING = "Hello! How can I help you with Python today?"  # greedy, as the demo's README prints it
SUM = "3 + 4 = 3"


@tool
def get_weather(city: str) -> str:
    """The weather of a city."""
    return f"sunny in {city}"


@tool
def get_time(zone: str) -> str:
    """The time of day."""
    return f"noon in {zone}"


class Conduct:
    """What either dialect must do; `model` makes the client."""

    @classmethod
    def setUpClass(cls):
        cls.server = server.start(cls)

    def model(self, **fields):
        raise NotImplementedError

    def test_an_answer_is_the_greedy_one_with_usage(self):
        got = self.model().invoke("Hello")
        self.assertIsInstance(got, AIMessage)
        self.assertEqual(got.content, GREETING)
        usage = got.usage_metadata
        self.assertEqual(usage["total_tokens"], usage["input_tokens"] + usage["output_tokens"])
        self.assertGreater(usage["output_tokens"], 5)

    def test_a_stream_is_the_answer_in_pieces(self):
        pieces = [chunk.content for chunk in self.model().stream("Hello")]
        self.assertGreater(len([piece for piece in pieces if piece]), 5)
        self.assertEqual("".join(pieces), GREETING)

    def test_a_chain_of_prompt_model_and_parser_answers(self):
        prompt = ChatPromptTemplate.from_messages([("human", "What is {a} + {b}?")])
        chain = prompt | self.model() | StrOutputParser()
        self.assertEqual(chain.invoke({"a": 3, "b": 4}), SUM)
        self.assertEqual("".join(chain.stream({"a": 3, "b": 4})), SUM)

    def test_a_batch_answers_each_in_its_place(self):
        questions = ["Hello", "What is 3 + 4?"] * 3
        got = [answer.content for answer in self.model().batch(questions)]
        self.assertEqual(got, [GREETING, SUM] * 3)

    def test_history_is_part_of_the_prompt(self):
        one = self.model().invoke("Hello").usage_metadata["input_tokens"]
        turns = [HumanMessage("Hello"), AIMessage(GREETING), HumanMessage("Hello")]
        self.assertGreater(self.model().invoke(turns).usage_metadata["input_tokens"], 2 * one)

    def test_a_tool_call_is_parsed_and_a_loop_goes_on(self):
        model = self.model().bind_tools([get_weather, get_time])
        question = HumanMessage("What is the weather in Paris?")
        called = model.invoke([question])
        self.assertEqual(len(called.tool_calls), 1)  # whose tool the demo model often gets wrong
        self.assertEqual(called.invalid_tool_calls, [])
        whole = None
        for chunk in model.stream([question]):
            whole = chunk if whole is None else whole + chunk
        for field in ("name", "args"):
            self.assertEqual(whole.tool_calls[0][field], called.tool_calls[0][field])
        result = ToolMessage("sunny", tool_call_id=called.tool_calls[0]["id"])
        after = model.invoke([question, called, result])
        self.assertGreater(after.usage_metadata["input_tokens"],
                           called.usage_metadata["input_tokens"])

    def test_several_calls_of_one_turn_take_their_results(self):
        calls = [{"name": "get_weather", "args": {"city": "Paris"}, "id": "call_a"},
                 {"name": "get_time", "args": {"zone": "UTC"}, "id": "call_b"}]
        turns = [HumanMessage("Weather and time?"), AIMessage("", tool_calls=calls),
                 ToolMessage("sunny", tool_call_id="call_a"),
                 ToolMessage("noon", tool_call_id="call_b")]
        got = self.model().bind_tools([get_weather, get_time]).invoke(turns)
        self.assertGreater(got.usage_metadata["output_tokens"], 0)

    def test_an_image_is_refused_with_the_reason(self):
        image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,aGk="}}
        with self.assertRaises(Exception) as caught:
            self.model().invoke([HumanMessage([{"type": "text", "text": "What?"}, image])])
        self.assertEqual(getattr(caught.exception, "status_code", None), 400)
        self.assertIn("vision", str(caught.exception))

    def test_asynchronous_calls_answer_too(self):
        import asyncio

        async def both():
            model = self.model()
            whole = await model.ainvoke("Hello")
            pieces = [chunk.content async for chunk in model.astream("Hello")]
            return whole.content, "".join(pieces)
        self.assertEqual(asyncio.run(both()), (GREETING, GREETING))


class OpenAiDialect(Conduct, unittest.TestCase):
    def model(self, **fields):
        return langchain_openai.ChatOpenAI(
            base_url=self.server.url + "/v1", api_key="none", model="demo", temperature=0,
            max_tokens=100, max_retries=0, timeout=server.PATIENCE, **fields)

    def test_usage_comes_in_a_stream_that_asks_for_it(self):
        whole = None
        for chunk in self.model(stream_usage=True).stream("Hello"):
            whole = chunk if whole is None else whole + chunk
        self.assertEqual(whole.usage_metadata["output_tokens"],
                         self.model().invoke("Hello").usage_metadata["output_tokens"])

    def test_log_probabilities_are_in_the_metadata(self):
        got = self.model(logprobs=True, top_logprobs=2).invoke("Hello")
        entries = got.response_metadata["logprobs"]["content"]
        self.assertTrue(GREETING.startswith(entries[0]["token"]))
        self.assertEqual(len(entries[0]["top_logprobs"]), 2)

    def test_the_responses_api_answers_and_streams(self):
        model = self.model(use_responses_api=True)
        self.assertEqual(model.invoke("Hello").text, GREETING)
        self.assertEqual("".join(chunk.text for chunk in model.stream("Hello")), GREETING)

    def test_the_plain_completion_class_completes(self):
        model = langchain_openai.OpenAI(base_url=self.server.url + "/v1", api_key="none",
                                        model="demo", temperature=0, max_tokens=8, max_retries=0)
        whole = model.invoke("def add(a, b):")
        self.assertTrue(whole)
        self.assertEqual("".join(model.stream("def add(a, b):")), whole)
        self.assertEqual(model.batch(["def add(a, b):"] * 3), [whole] * 3)


class AnthropicDialect(Conduct, unittest.TestCase):
    def model(self, **fields):
        return langchain_anthropic.ChatAnthropic(
            base_url=self.server.url, api_key="none", model="demo", temperature=0,
            max_tokens=100, max_retries=0, timeout=server.PATIENCE, **fields)

    def test_thinking_is_a_block_of_its_own(self):
        model = langchain_anthropic.ChatAnthropic(
            base_url=self.server.url, api_key="none", model="demo", max_tokens=2000, max_retries=0,
            thinking={"type": "enabled", "budget_tokens": 1024}, timeout=server.PATIENCE)
        got = model.invoke("What does len do?")
        self.assertEqual([block["type"] for block in got.content][0], "thinking")


if __name__ == "__main__":
    server.main()
