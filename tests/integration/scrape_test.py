"""/metrics: promtool accepts the native names, and the series move when the server works."""

import pathlib
import re
import shutil
import subprocess
import unittest

import server

# Series that load moves, by what they tell: (what, regular expression of native names).
MOVING = (
    ("throughput", r"tessera_generation_tokens_total$"),
    ("throughput", r"tessera_prompt_tokens_total$"),
    ("requests", r'tessera_requests_total\{.*="length".*\}$'),
    ("requests", r'tessera_http_requests_total\{.*"/v1/completions".*\}$'),
    ("queue", r"tessera_queue_wait_seconds_count"),
    ("latency", r"tessera_time_to_first_token_seconds_count"),
    ("latency", r"tessera_inter_token_latency_seconds_count"),
    ("step", r"tessera_step_seconds_count"),
    ("step", r"tessera_scheduler_step_seconds_count"),
    ("engram", r"tessera_engram_rows_total"),
    ("engram", r"tessera_engram_wait_seconds_count"),
)


def promtool():
    return shutil.which("promtool") or next(
        (str(path) for path in [pathlib.Path("build/tools/promtool")] if path.exists()), None)


def total(scrape, pattern):
    return sum(value for name, value in scrape.items() if re.match(pattern, name))


class Scrapes(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        # Two run, the rest wait, so that the queue shows.
        cls.server = server.start(cls, "--max-num-seqs", 2)

    def test_load_moves_the_series(self):
        before = self.server.metrics()
        streams = [self.server.stream(server.endless(prompt=f"# {i}\n", max_tokens=1500))
                   for i in range(5)]
        for stream in streams:
            self.addCleanup(stream.close)

        def full():
            scrape = self.server.metrics()
            return scrape if total(scrape, "tessera_queue_size") == 3 else None
        during = server.wait_until(full, "three requests show in the queue")
        self.assertEqual(total(during, "tessera_running_sequences"), 2)
        self.assertGreater(total(during, r'tessera_kv_blocks\{state="used"\}'), 0)
        self.assertGreater(total(during, "tessera_queue_tokens"), 0)
        self.assertGreater(total(during, "tessera_pool_saturation_ratio"), 0)
        self.assertEqual(total(during, "tessera_http_streams_open"), 5)
        self.assertGreaterEqual(total(during, "tessera_expert_load_imbalance_ratio"), 1)
        for stream in streams:
            stream.close()
        self.server.wait_idle()
        self.assertTrue(self.server.generate(server.endless(max_tokens=20)).done)

        def closed():
            # [DONE] reaches a client a little before its stream is counted as closed.
            scrape = self.server.metrics()
            return scrape if total(scrape, "tessera_http_streams_open") == 0 else None
        after = server.wait_until(closed, "the last stream is closed")
        for what, pattern in MOVING:
            with self.subTest(what=what, pattern=pattern):
                self.assertGreater(total(after, pattern), total(before, pattern))
        self.assertEqual(total(after, "tessera_http_client_disconnects_total"), 5)

    def test_the_vllm_names_agree_with_the_native_ones(self):
        # Of a whole request: one that its client left after prefill counts for one of them alone.
        self.server.wait_idle()
        before = {**self.server.metrics("native"), **self.server.metrics("vllm")}
        self.assertTrue(self.server.generate(server.endless(max_tokens=5)).done)

        def idle():
            # [DONE] reaches a client a little before its sequence is counted as ended.
            scrape = self.server.metrics("native")
            return scrape if total(scrape, "tessera_running_sequences") == 0 else None
        native = server.wait_until(idle, "nothing runs")
        vllm = self.server.metrics("vllm")
        self.assertFalse([name for name in native if ":" in name.split("{")[0]])
        for alias, name in (("vllm:generation_tokens_total", "tessera_generation_tokens_total"),
                            ("vllm:prompt_tokens_total", "tessera_prompt_tokens_total"),
                            ("vllm:num_requests_running", "tessera_running_sequences")):
            self.assertEqual(total(vllm, alias) - total(before, alias),
                             total(native, name) - total(before, name), alias)
        self.assertGreater(total(native, "tessera_prompt_tokens_total"),
                           total(before, "tessera_prompt_tokens_total"))
        for name in vllm:
            if name.startswith("vllm:num_requests_running"):
                self.assertIn('model_name="demo"', name)
        everything = self.server.metrics("all")
        self.assertLessEqual({name.split("{")[0] for name in (*native, *vllm)},
                             {name.split("{")[0] for name in everything})

    def test_refused_requests_are_counted(self):
        before = total(self.server.metrics(), r'tessera_http_requests_total\{.*"400".*\}')
        self.server.post("/v1/completions", {})
        after = total(self.server.metrics(), r'tessera_http_requests_total\{.*"400".*\}')
        self.assertEqual(after, before + 1)
        self.assertEqual(self.server.get("/metrics?names=bogus").status, 400)

    def test_promtool_accepts_the_native_names(self):
        tool = promtool()
        if tool is None:
            self.skipTest("promtool is not installed; ./dev setup fetches it")
        self.assertTrue(self.server.generate(server.endless(max_tokens=5)).done)
        text = self.server.get("/metrics?names=native").body
        self.assertIn(b"tessera_ready 1", text)
        checked = subprocess.run([tool, "check", "metrics"], input=text, capture_output=True,
                                 timeout=server.PATIENCE, check=False)
        self.assertEqual((checked.returncode, checked.stderr.decode(), checked.stdout.decode()),
                         (0, "", ""))


@unittest.skipUnless(server.has_mpi(), "mpirun is not installed")
class OverProcesses(unittest.TestCase):
    def test_collectives_and_engram_show(self):
        running = server.start(self, *server.CLUSTER)
        before = running.metrics()
        self.assertTrue(running.generate(server.endless(max_tokens=20)).done)
        after = running.metrics()
        for pattern in (r"tessera_collective_seconds_(count|sum)", r"tessera_collective_bytes_total",
                        r"tessera_engram_rows_total"):
            with self.subTest(pattern=pattern):
                self.assertGreater(total(after, pattern), total(before, pattern))
        self.assertEqual(total(after, "tessera_ready_workers"), 4)

    def test_every_pick_of_an_expert_is_reported_once(self):
        running = server.start(self, *server.CLUSTER, "--tensor-parallel-size", "2",
                               "--no-enable-prefix-caching", "--probe-interval", "1s")
        usage = running.post("/v1/completions", {
            "model": "demo", "prompt": ["def add(a, b):", "while True:", "import os", "x = ["],
            "n": 2, "max_tokens": 20, "ignore_eos": True}).json["usage"]
        # Each choice computes its prompt, and every token of its own but the last.
        positions = 2 * usage["prompt_tokens"] + usage["completion_tokens"] - 4 * 2

        def routed():
            return [sum(layer["total"]) for layer in running.get("/admin/v1/experts").json["layers"]]

        server.wait_until(lambda: routed() == 4 * [16 * positions], f"16 x {positions} items are reported")

        def last_step():
            state = running.get("/admin/v1/state").json
            return state["time"] - state["health"]["last_step_age_s"]

        begin = last_step()
        server.wait_until(lambda: last_step() > begin + 2, "health steps ran")
        self.assertEqual(routed(), 4 * [16 * positions], "health steps are not counted")
        ratios = total(running.metrics(), r"tessera_expert_layer_imbalance_ratio\{layer=\"[1-4]\"\}")
        self.assertGreater(ratios, 4)


if __name__ == "__main__":
    server.main()
