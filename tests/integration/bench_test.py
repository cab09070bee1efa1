"""`tessera bench serve` against a real server, and against one that cuts, refuses, stalls and bundles."""

import collections
import http.server
import json
import os
import re
import socketserver
import tempfile
import threading
import time
import unittest
import xml.etree.ElementTree

import server


def chunk(text, finish=None, usage=None):
    return {"choices": [{"index": 0, "text": text, "finish_reason": finish}], "usage": usage}


class Scripted(socketserver.ThreadingMixIn, http.server.HTTPServer):
    """Answers the requests after each other as the script says, the last entry for all that follow."""

    daemon_threads = True
    request_queue_size = 256

    def __init__(self, script):
        super().__init__(("127.0.0.1", 0), Handler)
        self.script = collections.deque(script)
        self.lock = threading.Lock()
        self.bodies = []
        self.headers = []
        self.begins = []  # when each request came
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_address[1]}"

    def handle_error(self, request, client_address):
        pass  # a client that hangs up is part of the script

    def take(self, body, headers):
        with self.lock:
            self.begins.append(time.monotonic())
            self.bodies.append(body)
            self.headers.append(headers)
            return self.script.popleft() if len(self.script) > 1 else self.script[0]


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *arguments):
        pass

    def whole(self, status, body):
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def do_GET(self):
        self.whole(200, {"data": [{"id": "scripted"}]})

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        answer = self.server.take(body, dict(self.headers))
        if isinstance(answer, int):
            self.whole(answer, {"error": {"message": f"scripted {answer}"}})
            return
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for step in answer:
            if isinstance(step, (int, float)):
                time.sleep(step)
                continue
            data = f"data: {step if isinstance(step, str) else json.dumps(step)}\n\n".encode()
            self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))
            self.wfile.flush()
        if answer[-1] == "[DONE]":
            self.wfile.write(b"0\r\n\r\n")
        else:
            self.close_connection = True  # cut in the middle


def good(*pieces, tokens=None):
    count = len(pieces) if tokens is None else tokens
    return [*(piece if isinstance(piece, (int, float)) else chunk(piece) for piece in pieces),
            chunk("", "length"),
            {"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": count}}, "[DONE]"]


class Bench(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.TemporaryDirectory()
        self.addCleanup(self.folder.cleanup)
        self.path = os.path.join(self.folder.name, "result.json")

    def bench(self, url, *options, environment=None):
        return server.run("bench", "serve", "--base-url", url, "--result-filename", self.path,
                          "--random-input-len", 3, "--random-output-len", 3, *options,
                          environment=environment)

    def scripted(self, *script):
        scripted = Scripted(script)
        self.addCleanup(scripted.server_close)
        self.addCleanup(scripted.shutdown)
        return scripted

    def result(self):
        with open(self.path, encoding="utf-8") as file:
            return json.load(file)

    def test_failures_are_counted_by_kind_and_the_rest_is_measured(self):
        scripted = self.scripted(
            429, 500, [chunk("a")], [{"error": {"message": "gone", "code": "worker_lost"}}, "[DONE]"],
            ["no json", "[DONE]"], good("a", "b", "c"))
        got = self.bench(scripted.url, "--num-prompts", 8, "--max-concurrency", 1)
        self.assertEqual(got.returncode, 1, got)
        result = self.result()
        self.assertEqual(result["errors_by_kind"], {
            "http 429": 1, "http 500": 1, "connection": 1, "stream worker_lost": 1, "malformed": 1})
        self.assertEqual((result["completed"], result["failed"]), (3, 5))
        self.assertEqual(result["total_output_tokens"], 9)
        self.assertEqual(result["total_input_tokens"], 9)
        self.assertIn("1 x http 429: the server answered 429: scripted 429", got.stdout)

    def test_a_stalled_server_delays_no_arrival(self):
        # One answer takes a second: a loop that waits for it would send the others late.
        scripted = self.scripted(good(1.0, "a", "b", "c"), good("a", "b", "c"))
        got = self.bench(scripted.url, "--num-prompts", 20, "--request-rate", 40)
        self.assertEqual(got.returncode, 0, got)
        result = self.result()
        self.assertEqual(result["completed"], 20)
        self.assertEqual(len(scripted.begins), 20)
        self.assertEqual(result["held_back_requests"], 0)
        self.assertEqual(result["latency_from"], "arrival")
        self.assertLess(result["median_ttft_ms"], 500)
        self.assertGreater(result["p99_ttft_ms"], 500)

    def test_with_one_place_the_wait_counts_and_is_warned_about(self):
        scripted = self.scripted(good(0.5, "a", "b", "c"), good("a", "b", "c"))
        got = self.bench(scripted.url, "--num-prompts", 6, "--request-rate", 100,
                         "--max-concurrency", 1, "--goodput", "ttft:250", "--percentile-metrics",
                         "ttft,client_queue_time")
        self.assertEqual(got.returncode, 0, got)
        result = self.result()
        # All six arrived within 60 ms, and the first held the place for half a second.
        self.assertGreater(result["median_ttft_ms"], 250)
        self.assertGreater(result["median_client_queue_time_ms"], 250)
        self.assertEqual(result["request_goodput"], 0)
        self.assertEqual(result["max_concurrent_requests"], 1)
        self.assertIn("waited for a free place", got.stderr)
        self.assertTrue(any("free place" in warning for warning in result["warnings"]))

    def test_pieces_of_several_tokens_count_as_such(self):
        usage = [{"prompt_tokens": 3, "completion_tokens": count} for count in (4, 8, 12)]
        bundled = [chunk("abcd", usage=usage[0]), 0.2, chunk("efgh", usage=usage[1]), 0.2,
                   chunk("ijkl", usage=usage[2]), chunk("", "length", usage[2]),
                   {"choices": [], "usage": usage[2]}, "[DONE]"]
        scripted = self.scripted(bundled)
        got = self.bench(scripted.url, "--num-prompts", 2, "--continuous-usage",
                         "--save-detailed")
        self.assertEqual(got.returncode, 0, got)
        result = self.result()
        self.assertEqual(result["total_output_tokens"], 24)
        self.assertEqual(result["tokens_per_event"], 4)
        self.assertEqual([len(gaps) for gaps in result["itls"]], [2, 2])
        # Eight gaps of a quarter of what lies between two pieces.
        mean_piece_ms = sum(map(sum, result["itls"])) * 1000 / 4
        self.assertAlmostEqual(result["mean_itl_ms"], mean_piece_ms / 4, delta=0.01 * mean_piece_ms)
        self.assertEqual(result["generated_texts"], ["abcdefghijkl"] * 2)

    def test_the_request_is_what_was_asked_for(self):
        scripted = self.scripted(good("a", "b", "c"))
        got = self.bench(
            scripted.url + "/v1", "--num-prompts", 1, "--header", "x-tenant=blue", "--temperature",
            "0.5", "--extra-body", '{"top_k": 3}', environment={"OPENAI_API_KEY": "secret"})
        self.assertEqual(got.returncode, 0, got)
        body, = scripted.bodies
        self.assertEqual({key: body[key] for key in body if key != "prompt"}, {
            "model": "scripted", "max_tokens": 3, "ignore_eos": True, "temperature": 0.5,
            "top_k": 3, "stream": True, "stream_options": {"include_usage": True}})
        self.assertEqual(len(body["prompt"]), 3)
        headers = {name.lower(): value for name, value in scripted.headers[0].items()}
        self.assertEqual(headers["authorization"], "Bearer secret")
        self.assertEqual(headers["x-tenant"], "blue")

    def test_a_server_that_comes_late_is_waited_for(self):
        scripted = self.scripted(503, good("a", "b", "c"))
        got = self.bench(scripted.url, "--num-prompts", 2, "--ready-check-timeout-sec", 30)
        self.assertEqual(got.returncode, 0, got)
        self.assertEqual(self.result()["completed"], 2)

    def test_against_tessera_every_dataset_and_dialect_runs(self):
        running = server.start(self)
        shared = os.path.join(self.folder.name, "conversations.json")
        with open(shared, "w", encoding="utf-8") as file:
            json.dump([{"conversations": [{"from": "human", "value": "What is a list in Python?"},
                                          {"from": "gpt", "value": "A sequence of items. " * 2}]}],
                      file)
        lines = os.path.join(self.folder.name, "lines.jsonl")
        with open(lines, "w", encoding="utf-8") as file:
            file.write('{"prompt": "Hello", "output_tokens": 3}\n')
        chat = ("--backend", "openai-chat")
        for options, tokens in (
                ((), 18), (chat, 18),
                (("--dataset-name", "prefix_repetition", "--prefix-repetition-num-prefixes", 2,
                  "--prefix-repetition-output-len", 4, "--ignore-eos"), 24),
                (("--dataset-name", "sharegpt", "--dataset-path", shared, "--sharegpt-output-len",
                  5, "--ignore-eos", *chat), 30),
                (("--dataset-name", "custom", "--dataset-path", lines, "--ignore-eos"), 18)):
            with self.subTest(options=options):
                got = self.bench(running.url, "--num-prompts", 6, "--continuous-usage", *options)
                self.assertEqual(got.returncode, 0, got)
                result = self.result()
                self.assertEqual(result["completed"], 6)
                self.assertEqual(result["total_output_tokens"], tokens)
                self.assertEqual(result["tokens_per_event"] >= 1, True)
        running.wait_idle()

    def test_a_sweep_is_a_line_for_each_rate_and_a_page_of_curves(self):
        scripted = self.scripted(good("a", "b", "c"))
        page = os.path.join(self.folder.name, "plot.html")
        got = self.bench(scripted.url, "--num-prompts", 5, "--request-rate-sweep", "50,100",
                         "--plot-file", page)
        self.assertEqual(got.returncode, 0, got)
        with open(self.path, encoding="utf-8") as file:
            results = [json.loads(line) for line in file]
        self.assertEqual([result["request_rate"] for result in results], [50, 100])
        self.assertEqual([result["completed"] for result in results], [5, 5])
        with open(page, encoding="utf-8") as file:
            html = file.read()
        self.assertEqual(html.count("<svg"), 4 + 2 * 4)
        self.assertNotIn("<script", html)
        self.assertNotRegex(html, r"(src|href)=")
        for svg in re.findall(r"<svg.*?</svg>", html, re.DOTALL):
            xml.etree.ElementTree.fromstring(svg)


if __name__ == "__main__":
    server.main()
