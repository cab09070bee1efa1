"""Bad input, as a table: each gets its typed error and the server stays healthy; nothing is a 500."""

import http.client
import json
import socket
import unittest

import openai

import server

USER = [{"role": "user", "content": "Hello"}]
TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
LONG = "a b c " * 6000
IMAGE = [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]

# (what, fields of a chat request, status, code or None, parameter or None)
CHAT = [
    ("unknown model", {"model": "gpt-9"}, 404, "model_not_found", "model"),
    ("model of another type", {"model": 7}, 400, None, "model"),
    ("no messages", {"messages": None}, 400, None, "messages"),
    ("empty messages", {"messages": []}, 400, None, "messages"),
    ("messages of another type", {"messages": "Hello"}, 400, None, "messages"),
    ("a message of another type", {"messages": ["Hello"]}, 400, None, None),
    ("unknown role", {"messages": [{"role": "alien", "content": "x"}]}, 400, None, None),
    ("message without a role", {"messages": [{"content": "x"}]}, 400, None, None),
    ("content of another type", {"messages": [{"role": "user", "content": 7}]}, 400, None, None),
    ("image part", {"messages": IMAGE}, 400, "unsupported_parameter", None),
    ("prompt over the context", {"messages": [{"role": "user", "content": LONG}]}, 400,
     "context_length_exceeded", "messages"),
    ("max_tokens over the context", {"max_tokens": 10**9}, 400, "context_length_exceeded", None),
    ("n = 1e9", {"n": 10**9}, 400, None, "n"),
    ("n = 0", {"n": 0}, 400, None, "n"),
    ("n = -1", {"n": -1}, 400, None, "n"),
    ("n over int64", {"n": 10**30}, 400, None, "n"),
    ("n fractional", {"n": 1.5}, 400, None, "n"),
    ("n of another type", {"n": "two"}, 400, None, "n"),
    ("negative max_tokens", {"max_tokens": -1}, 400, None, "max_tokens"),
    ("max_tokens of another type", {"max_tokens": "many"}, 400, None, "max_tokens"),
    ("negative temperature", {"temperature": -0.1}, 400, None, "temperature"),
    ("huge temperature", {"temperature": 1e300}, 400, None, "temperature"),
    ("temperature of another type", {"temperature": "hot"}, 400, None, "temperature"),
    ("top_p = 0", {"top_p": 0}, 400, None, "top_p"),
    ("top_p = 2", {"top_p": 2}, 400, None, "top_p"),
    ("logprobs of another type", {"logprobs": 1000}, 400, None, "logprobs"),
    ("top_logprobs = 1000", {"logprobs": True, "top_logprobs": 1000}, 400, None, "top_logprobs"),
    ("stop of another type", {"stop": 5}, 400, None, "stop"),
    ("a thousand stops", {"stop": ["x"] * 1000}, 400, None, "stop"),
    ("a stop of a megabyte", {"stop": "x" * 10**6}, 400, None, "stop"),
    ("logit_bias of no token", {"logit_bias": {"999999999": 1}}, 400, None, "logit_bias"),
    ("stream of another type", {"stream": "yes"}, 400, None, "stream"),
    ("forced tool without tools", {"tool_choice": "required"}, 400, None, "tool_choice"),
    ("tools of another type", {"tools": "all"}, 400, None, "tools"),
    ("template in a request", {"chat_template": "{{ x }}"}, 400, "unsupported_parameter",
     "chat_template"),
    ("schema that cannot be enforced", {"response_format": {"type": "json_schema", "json_schema": {
        "name": "x", "schema": {"not": {}}}}}, 400, "invalid_grammar",
     "response_format.json_schema.schema"),
]

COMPLETIONS = [
    ("no prompt", {"prompt": None}, 400, None, "prompt"),
    ("empty prompt", {"prompt": []}, 400, None, "prompt"),
    ("prompt of another type", {"prompt": {"a": 1}}, 400, None, "prompt"),
    ("token id over the vocabulary", {"prompt": [1, 10**6]}, 400, None, None),
    ("negative token id", {"prompt": [-1]}, 400, None, None),
    ("token id over int32", {"prompt": [2**40]}, 400, None, None),
    ("nested too deep", {"prompt": [[[1]]]}, 400, None, "prompt"),
    ("too many prompts", {"prompt": [[1]] * 100000}, 400, None, "prompt"),
    ("too many tokens", {"prompt": [1] * 100000}, 400, "context_length_exceeded", None),
    ("logprobs = 1000", {"logprobs": 1000}, 400, None, "logprobs"),
]

# Bodies that are no JSON object.
BODIES = [
    ("nothing", b""),
    ("no JSON", b"{"),
    ("JSON of another kind", b"[1, 2]"),
    ("not a number", b'{"messages": [{"role": "user", "content": "Hello"}], "temperature": NaN}'),
    ("infinite number", b'{"messages": [{"role": "user", "content": "Hello"}], "temperature": 1e999}'),
    ("deep", b'{"a":' + b"[" * 100000),
    ("deep and closed", b'{"a":' + b"[" * 10000 + b"]" * 10000 + b"}"),
    ("half a character", b'{"messages": [{"role": "user", "content": "\xe2\x82"}]}'),
    ("half a surrogate pair", b'{"messages": [{"role": "user", "content": "\\ud800"}]}'),
    ("zero bytes", b"\0" * 1000),
]


class BadRequest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.server = server.start(cls)

    def tearDown(self):
        self.assertEqual(self.server.get("/readyz").status, 200, self.server.logs())

    def expect(self, reply, status, code=None, parameter=None):
        """The shape of every error, and this one's facts."""
        self.assertEqual(reply.status, status, reply)
        error = reply.error
        self.assertEqual(set(reply.json), {"error"}, reply)
        self.assertEqual(set(error), {"message", "type", "param", "code"}, reply)
        self.assertTrue(error["message"] and isinstance(error["message"], str), reply)
        self.assertEqual(error["type"], "invalid_request_error", reply)
        self.assertLess(len(error["message"]), 400, "echoes the input")
        if code:
            self.assertEqual(error["code"], code, reply)
        if parameter:
            self.assertEqual(error["param"], parameter, reply)
        self.assertIn("x-request-id", reply.headers)
        self.assertEqual(reply.headers["content-type"], "application/json")

    def test_chat_fields(self):
        for what, fields, status, code, parameter in CHAT:
            for stream in (False, True):
                if "stream" in fields and stream:
                    continue
                with self.subTest(what=what, stream=stream):
                    body = {"messages": USER, "stream": stream, **fields}
                    self.expect(self.server.post("/v1/chat/completions", body), status, code,
                                parameter)

    def test_completion_fields(self):
        for what, fields, status, code, parameter in COMPLETIONS:
            with self.subTest(what=what):
                body = {"prompt": "x", **fields}
                self.expect(self.server.post("/v1/completions", body), status, code, parameter)

    def test_bodies_that_are_no_request(self):
        for what, body in BODIES:
            for path in ("/v1/chat/completions", "/v1/completions", "/tokenize", "/detokenize"):
                with self.subTest(what=what, path=path):
                    self.expect(self.server.post(path, body), 400)

    def test_detokenize_refuses_what_is_no_token(self):
        for tokens in ([10**6], [-1], ["x"], "x", [2**40], None):
            with self.subTest(tokens=tokens):
                self.expect(self.server.post("/detokenize", {"tokens": tokens}), 400)

    def test_a_body_of_100_megabytes_is_refused_and_not_kept(self):
        # The answer may come while the client still writes, so that its write may fail.
        connection = socket.create_connection((self.server.host, self.server.port), timeout=30)
        self.addCleanup(connection.close)
        size = 100 * 1000 * 1000
        connection.sendall(b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\n"
                           b"Content-Type: application/json\r\n"
                           b"Content-Length: %d\r\n\r\n" % size)
        try:
            for _ in range(size // 10**6):
                connection.sendall(b" " * 10**6)
        except OSError:
            pass
        response = http.client.HTTPResponse(connection)
        response.begin()
        reply = server.Reply(response.status, response.getheaders(), response.read())
        self.expect(reply, 413, "request_too_large")

    def test_a_chunked_body_of_100_megabytes_is_refused(self):
        connection = socket.create_connection((self.server.host, self.server.port), timeout=30)
        self.addCleanup(connection.close)
        connection.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: x\r\n"
                           b"Transfer-Encoding: chunked\r\n\r\n")
        try:
            for _ in range(100):
                connection.sendall(b"f4240\r\n" + b" " * 10**6 + b"\r\n")
        except OSError:
            pass
        response = http.client.HTTPResponse(connection)
        response.begin()
        self.expect(server.Reply(response.status, response.getheaders(), response.read()), 413)

    def test_http_that_is_none(self):
        for text in (b"nonsense\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n", b"\x16\x03\x01\x02\x00" * 50 + b"\r\n\r\n",
                     b"GET / HTTP/1.1\r\n" + b"A: " + b"x" * 100000 + b"\r\n\r\n",
                     b"POST /v1/completions HTTP/1.1\r\nContent-Length: -5\r\n\r\n"):
            with self.subTest(text=text[:30]):
                with socket.create_connection((self.server.host, self.server.port), 30) as one:
                    try:
                        one.sendall(text)
                        answer = one.recv(65536)
                    except ConnectionResetError:
                        answer = b""
                self.assertTrue(answer == b"" or b" 4" in answer.split(b"\r\n")[0], answer[:200])

    def test_compressed_bodies_are_refused(self):
        reply = self.server.post("/v1/completions", b"x", headers={"Content-Encoding": "gzip"})
        self.expect(reply, 415)

    def test_routes_and_methods(self):
        self.expect(self.server.get("/nowhere"), 404)
        self.expect(self.server.post("/v1/embeddings", {"input": "x"}), 404)
        self.expect(self.server.get("/v1/chat/completions"), 405)
        self.expect(self.server.request("DELETE", "/v1/models"), 405)
        self.expect(self.server.get("/" + "a" * 4000), 404)
        self.expect(self.server.get("/v1/models/../../etc/passwd"), 404)

    def test_the_client_raises_typed_errors(self):
        client = openai.OpenAI(base_url=self.server.url + "/v1", api_key="none", max_retries=0)
        with self.assertRaises(openai.NotFoundError) as missing:
            client.chat.completions.create(model="gpt-9", messages=USER)
        self.assertEqual(missing.exception.code, "model_not_found")
        self.assertTrue(missing.exception.request_id)
        with self.assertRaises(openai.BadRequestError) as long:
            client.chat.completions.create(model="demo",
                                           messages=[{"role": "user", "content": LONG}])
        self.assertEqual(long.exception.code, "context_length_exceeded")
        self.assertEqual(long.exception.param, "messages")
        with self.assertRaises(openai.APIStatusError) as large:
            client.chat.completions.create(
                model="demo", messages=[{"role": "user", "content": "x" * (5 << 20)}])
        self.assertEqual(large.exception.status_code, 413)

    def test_a_table_entry_would_fail_for_a_good_request(self):
        # The table proves nothing if the request that it starts from is refused as well.
        self.assertEqual(self.server.post("/v1/chat/completions",
                                          {"messages": USER, "max_tokens": 1}).status, 200)
        self.assertEqual(self.server.post("/v1/completions",
                                          {"prompt": "x", "max_tokens": 1}).status, 200)
        self.assertEqual(json.loads(self.server.post("/detokenize", {"tokens": [103]}).body)["prompt"],
                         "h")


if __name__ == "__main__":
    server.main()
