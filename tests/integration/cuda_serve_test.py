"""`serve --backend cuda` answers over HTTP with the tokens of the cpu backend, decode steps as graphs: on a GPU where the build has its code, else simulated."""

import re
import unittest

import server

# Small caches: each byte of simulated device memory has a shadow.
SMALL = ("--max-model-len", 256, "--num-kv-blocks", 40, "--max-num-seqs", 2,
         "--max-num-batched-tokens", 64)
BODY = {"prompt": "def add(a, b):", "max_tokens": 4, "temperature": 0, "ignore_eos": True, "logprobs": 2}


def graph_steps(running):
    steps = re.search(r'tessera_rank_steps_total\{[^}]*execution="graph"[^}]*\} (\d+)', running.get("/metrics").body.decode())
    return int(steps[1])


class CudaServes(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        try:
            cls.cuda = server.start(cls, "--backend", "cuda", "--decode-graphs", "auto", *SMALL)
        except AssertionError as error:
            if "no device" in str(error):
                raise unittest.SkipTest("skipped: no device") from None
            raise
        cls.cpu = server.start(cls, *SMALL)

    def test_a_completion_has_the_tokens_of_the_cpu_backend(self):
        seen = self.cuda.post("/v1/completions", BODY, patience=240)
        self.assertEqual(seen.status, 200, seen)
        expected = self.cpu.post("/v1/completions", BODY)
        for part in ("text", "finish_reason"):
            self.assertEqual(seen.json["choices"][0][part], expected.json["choices"][0][part])
        self.assertEqual(seen.json["choices"][0]["logprobs"]["tokens"],
                         expected.json["choices"][0]["logprobs"]["tokens"])
        self.assertEqual(seen.json["usage"]["completion_tokens"], 4)
        # The first token is the prompt's, whose step is no graph.
        self.assertGreaterEqual(graph_steps(self.cuda), 3)

    def test_two_ranks_have_the_tokens_of_one(self):
        pair = server.start(self, "--backend", "cuda", "--decode-graphs", "auto", "--tensor-parallel-size", 2, *SMALL)
        seen = pair.post("/v1/completions", BODY, patience=240)
        self.assertEqual(seen.status, 200, seen)
        expected = self.cpu.post("/v1/completions", BODY)
        self.assertEqual(seen.json["choices"][0]["logprobs"]["tokens"],
                         expected.json["choices"][0]["logprobs"]["tokens"])
        if 'id="cuda_sim/f32"' in pair.get("/metrics").body.decode():  # GPUs may be too few, or unconnected
            self.assertGreaterEqual(graph_steps(pair), 3)

    def test_a_chat_streams_to_its_end(self):
        stream = self.cuda.stream(
            {"messages": [{"role": "user", "content": "a"}], "max_tokens": 2, "temperature": 0},
            path="/v1/chat/completions", patience=240)
        self.addCleanup(stream.close)
        events = list(stream.events())
        self.assertTrue(stream.done)
        self.assertIn(events[-1]["choices"][0]["finish_reason"], ("length", "stop"))

    def test_metrics_name_the_device(self):
        text = self.cuda.get("/metrics").body.decode()
        simulated = 'id="cuda_sim/f32"' in text
        if not simulated:
            self.assertIn('id="cuda/f32"', text)
        self.assertRegex(text, 'isa="simulated GPU"' if simulated else 'isa="[^"]*sm_90')


if __name__ == "__main__":
    server.main()
