"""`tessera chat` and `tessera bench serve` against a running server."""

import json
import os
import signal
import subprocess
import tempfile
import unittest

import server


class Clients(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.server = server.Server(["--api-key", "secret", "--max-num-seqs", "8"])
        cls.addClassCleanup(cls.server.destroy)
        cls.server.wait_ready()

    def client(self, *words):
        return [server.binary(), *words]

    def run_client(self, *words, typed="", key="secret"):
        return subprocess.run(
            self.client(*words), input=typed, capture_output=True, text=True,
            timeout=server.PATIENCE, env={**os.environ, "TESSERA_API_KEY": key}, check=False)

    def chat(self, typed, *options, key="secret"):
        return self.run_client("chat", "--url", self.server.url, "--temperature", "0",
                               "--max-tokens", "24", *options, typed=typed, key=key)

    def bench(self, *options):
        return self.run_client("bench", "serve", "--base-url", self.server.url, *options)

    def running(self):
        """Requests under way and waiting."""
        load = self.server.get("/load", headers={"Authorization": "Bearer secret"}).json
        return load["running"] + load["waiting"]

    def expected_reply(self, messages):
        body = {"model": "demo", "messages": messages, "temperature": 0, "max_tokens": 24}
        reply = self.server.post("/v1/chat/completions", body,
                                 headers={"Authorization": "Bearer secret"})
        return reply.json["choices"][0]["message"]["content"]

    def test_chat_prints_the_replies_of_one_conversation(self):
        first = [{"role": "user", "content": "Hello"}]
        one = self.expected_reply(first)
        second = first + [{"role": "assistant", "content": one},
                          {"role": "user", "content": "two\nlines"}]
        two = self.expected_reply(second)
        got = self.chat("Hello\ntwo\\\nlines\n")
        self.assertEqual(got.returncode, 0, got)
        replies = [text if not text or text.endswith("\n") else text + "\n" for text in (one, two)]
        self.assertEqual(got.stdout, "".join(replies))

    def test_chat_fails_plainly(self):
        for options, key, message in ((["--model", "nope"], "secret", "does not exist"),
                                      ([], "wrong", "API key")):
            got = self.chat("Hello\n", *options, key=key)
            self.assertEqual(got.returncode, 1, got)
            self.assertIn(message, got.stderr)
            self.assertEqual(got.stdout, "")

    def test_bench_counts_every_token_and_writes_its_report(self):
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "result.json")
            got = self.bench("--num-prompts", "12", "--random-input-len", "20",
                             "--random-output-len", "6", "--ignore-eos", "--max-concurrency",
                             "4", "--request-rate", "200", "--result-filename", path)
            self.assertEqual(got.returncode, 0, got)
            with open(path, encoding="utf-8") as file:
                result = json.load(file)
        self.assertEqual(result["completed"], 12)
        self.assertEqual(result["total_input_tokens"], 240)
        self.assertEqual(result["total_output_tokens"], 72)
        self.assertEqual(result["errors_by_kind"], {})
        self.assertLessEqual(result["max_concurrent_requests"], 4)
        self.assertGreater(result["output_throughput"], 0)
        self.assertLessEqual(result["mean_ttft_ms"], result["mean_e2el_ms"])

    def test_bench_tells_failures_by_kind(self):
        got = self.bench("--num-prompts", "3", "--random-input-len", "100000")
        self.assertEqual(got.returncode, 1, got)
        self.assertIn("3 x http 400", got.stdout)

    def test_an_interrupted_bench_reports_and_frees_the_server(self):
        process = subprocess.Popen(
            self.client("bench", "serve", "--base-url", self.server.url, "--api-key", "secret",
                        "--num-prompts", "64", "--random-input-len", "16",
                        "--random-output-len", "3000", "--ignore-eos"),
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self.addCleanup(process.kill)
        server.wait_until(lambda: self.running() > 0, "requests run")
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=server.PATIENCE)
        self.assertEqual(process.returncode, 1, err)
        self.assertIn("interrupted", err)
        self.assertIn("x cancelled", out)
        server.wait_until(lambda: self.running() == 0, "the requests are gone")


if __name__ == "__main__":
    server.main()
