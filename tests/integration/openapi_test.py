"""The OpenAPI document is true: schemathesis finds no 5xx, no undocumented status and no body that differs from its schema.

It generates requests from the document that the server serves: valid ones, broken ones and the ones at
the borders of the schemas. A run is a seed, printed on failure. TESSERA_LONG_TESTS=1 makes it longer,
with seeds of its own.
"""

import json
import os
import pathlib
import random
import subprocess
import sys
import tempfile
import unittest

import jsonschema_rs

import server

LONG = bool(os.environ.get("TESSERA_LONG_TESTS"))
EXAMPLES, SEED = (300, random.randrange(1 << 32)) if LONG else (15, 1)
CHECKS = ("not_a_server_error", "status_code_conformance", "content_type_conformance",
          "response_schema_conformance", "response_headers_conformance")
MESSAGES = [{"role": "user", "content": "add"}]


class OpenApiTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        # One layer of made-up weights: what is looked at is the door.
        cls.server = server.start(cls, "--load-format", "dummy", "--override", "num_hidden_layers=1",
                                  "--override", "num_nextn_predict_layers=0", "--max-model-len", 256,
                                  "--log-level", "warning")
        cls.document = cls.server.get("/openapi.json").json

    def schemathesis(self, *arguments):
        with tempfile.TemporaryDirectory() as folder:
            done = subprocess.run(
                [pathlib.Path(sys.executable).with_name("schemathesis"), "--no-color", "run",
                 f"{self.server.url}/openapi.json", "--checks", ",".join(CHECKS), "--workers", "1",
                 "--seed", str(SEED), "--generation-database", "none",
                 # A deadline of milliseconds would pass, which is a 504 and no error of the server.
                 "--header", "x-request-timeout-ms: 60000", *arguments],
                cwd=folder, capture_output=True, text=True, check=False)
        self.assertEqual(done.returncode, 0, done.stdout[-20000:] + done.stderr[-2000:])
        # A document that went missing would leave nothing to test.
        self.assertRegex(done.stdout, r"Tested: [1-9]")

    def test_generated_requests_get_documented_answers(self):
        # One of those two never ends, and after the other nothing is generated any more.
        self.schemathesis("--exclude-tag", "refused", "--exclude-operation-id", "adminEvents",
                          "--exclude-operation-id", "adminDrain", "--phases", "examples,coverage,fuzzing",
                          "--max-examples", str(EXAMPLES))
        self.server.wait_idle()

    def test_refused_routes_are_refused_as_documented(self):
        self.schemathesis("--include-tag", "refused", "--phases", "fuzzing", "--max-examples", "2")

    def validator(self, name):
        return jsonschema_rs.validator_for({**self.document["components"]["schemas"][name],
                                            "components": self.document["components"]})

    def test_chunks_of_streams_have_their_schema(self):
        usage = {"stream_options": {"include_usage": True}, "max_tokens": 6, "temperature": 2.0}
        for path, body, schema in (
                ("/v1/chat/completions", {"messages": MESSAGES, "logprobs": True, "n": 2, **usage},
                 "ChatCompletionChunk"),
                ("/v1/completions", {"prompt": "add", "logprobs": 2, "return_token_ids": True, **usage},
                 "CompletionChunk")):
            validator = self.validator(schema)
            stream = self.server.stream(body, path=path)
            chunks = list(stream.events())
            self.assertTrue(stream.done)
            stream.close()
            self.assertGreater(len(chunks), 2)
            for chunk in chunks:
                validator.validate(chunk)

    def test_named_events_are_documented(self):
        for path, body, schema in (
                ("/v1/responses", {"input": "add", "max_output_tokens": 4}, "ResponseEvent"),
                ("/v1/messages", {"messages": MESSAGES, "max_tokens": 4}, "AnthropicEvent")):
            validator = self.validator(schema)
            reply = self.server.post(path, {**body, "stream": True})
            self.assertEqual(reply.status, 200)
            names = set()
            for text in reply.body.decode().strip().split("\n\n"):
                event = dict(line.split(": ", 1) for line in text.split("\n"))
                validator.validate(event)
                self.assertEqual(json.loads(event["data"])["type"], event["event"])
                names.add(event["event"])
            self.assertGreater(len(names), 4, names)


if __name__ == "__main__":
    server.main()
