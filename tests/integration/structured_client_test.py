"""Structured output with pydantic, through every client that offers it, against a real server."""

import os
import sys
import typing
import unittest

sys.warnoptions.append("ignore")  # litellm's own models warn about themselves by the dozen
os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"  # or the import asks the network for prices
os.environ["LANGSMITH_TRACING"] = "false"  # nothing is reported anywhere

import langchain_openai
import litellm
import openai
import pydantic

import server

QUESTION = [{"role": "user", "content": "What is the weather in Paris?"}]


class Weather(pydantic.BaseModel):
    """Without a field that a model could fill for ever."""

    model_config = pydantic.ConfigDict(extra="forbid")
    city: typing.Literal["Paris", "Rome"]
    celsius: typing.Literal[-5, 0, 21]
    windy: bool
    days: list[typing.Literal["Monday", "Tuesday"]] = pydantic.Field(max_length=2)


class Structured(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.server = server.start(cls)
        cls.client = openai.OpenAI(base_url=cls.server.url + "/v1", api_key="none", max_retries=0,
                                   timeout=server.PATIENCE)

    def test_a_parsed_answer_is_an_instance(self):
        for seed in range(5):
            got = self.client.chat.completions.parse(
                model="demo", messages=QUESTION, response_format=Weather, temperature=2, seed=seed,
                max_tokens=200)
            self.assertEqual(got.choices[0].finish_reason, "stop")
            self.assertIsInstance(got.choices[0].message.parsed, Weather)

    def test_a_stream_is_parsed_at_its_end(self):
        with self.client.chat.completions.stream(
                model="demo", messages=QUESTION, response_format=Weather, temperature=0,
                max_tokens=200) as stream:
            final = stream.get_final_completion()
        self.assertIsInstance(final.choices[0].message.parsed, Weather)

    def test_responses_are_parsed_too(self):
        got = self.client.responses.parse(
            model="demo", input="What is the weather in Paris?", text_format=Weather,
            temperature=0, max_output_tokens=200)
        self.assertIsInstance(got.output_parsed, Weather)

    def test_a_strict_tool_gets_the_arguments_of_its_schema(self):
        got = self.client.chat.completions.parse(
            model="demo", messages=QUESTION, tools=[openai.pydantic_function_tool(Weather)],
            tool_choice="required", temperature=1, seed=3, max_tokens=300)
        call = got.choices[0].message.tool_calls[0]
        self.assertEqual(call.function.name, "Weather")
        self.assertIsInstance(call.function.parsed_arguments, Weather)

    def test_langchain_gives_an_instance_by_either_method(self):
        model = langchain_openai.ChatOpenAI(
            base_url=self.server.url + "/v1", api_key="none", model="demo", temperature=0,
            max_tokens=300, max_retries=0, timeout=server.PATIENCE)
        for method in ("json_schema", "function_calling"):
            with self.subTest(method=method):
                got = model.with_structured_output(Weather, method=method).invoke(QUESTION)
                self.assertIsInstance(got, Weather)

    def test_litellm_gives_text_of_the_schema(self):
        got = litellm.completion(
            model="openai/demo", messages=QUESTION, response_format=Weather, temperature=0,
            max_tokens=200, api_base=self.server.url + "/v1", api_key="none")
        Weather.model_validate_json(got.choices[0].message.content)


if __name__ == "__main__":
    server.main()
