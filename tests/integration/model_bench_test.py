"""`tessera bench decode` and `prefill` on the bundled model, and `bench kernels`, `engram` and `host`: what their figures say, never how fast."""

import json
import os
import tempfile
import unittest

import server


def bench(*arguments):
    return server.run("bench", *arguments)


class ModelBenchTest(unittest.TestCase):

    def run_json(self, phase, *arguments):
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "result.json")
            run = bench(phase, "--model", server.MODEL, "--rounds", "2", "--threads-per-rank", "1", "--output-json", path,
                        *arguments)
            self.assertEqual(run.returncode, 0, run.stderr)
            with open(path) as file:
                return json.load(file), run.stdout

    def test_decode_counts_only_the_experts_that_were_chosen(self):
        result, table = self.run_json("decode", "--batch-sizes", "1,3", "--prompt-lengths", "5", "--steps", "2")
        with open(os.path.join(server.MODEL, "config.json")) as file:
            config = json.load(file)
        one, three = result["points"]
        self.assertEqual((one["batch_size"], three["batch_size"]), (1, 3))
        self.assertEqual(one["experts_per_layer"], config["num_experts_per_tok"])
        self.assertGreater(three["experts_per_layer"], one["experts_per_layer"])
        self.assertLessEqual(three["experts_per_layer"], 3 * one["experts_per_layer"])
        # The same weights but for the experts; a row of the cache for each sequence.
        experts = three["experts_per_layer"] - one["experts_per_layer"]
        moe_layers = config["num_hidden_layers"] - config["first_k_dense_replace"]
        expert_bytes = (three["weight_bytes"] - one["weight_bytes"]) / experts / moe_layers
        values = 3 * config["hidden_size"] * config["moe_intermediate_size"]
        self.assertAlmostEqual(expert_bytes / values, 17 / 32, places=6)  # MXFP4: 4 bits, a byte of scale for 32
        self.assertEqual(three["cached_bytes"], 3 * one["cached_bytes"])
        for point in result["points"]:
            self.assertEqual(len(point["seconds"]["rounds"]), 2)
            self.assertLessEqual(point["seconds"]["min"], point["seconds"]["median"])
            bytes_per_s = (point["weight_bytes"] + point["cached_bytes"]) / point["seconds"]["rounds"][0]
            self.assertAlmostEqual(point["share"]["rounds"][0], bytes_per_s / result["read_bytes_per_s"]["rounds"][0])
        self.assertEqual(len(table.splitlines()), 3)
        for point in (one, three):
            self.assertIn("projections, indexer", point["stages"])
            self.assertTrue(all(seconds >= 0 for seconds in point["stages"].values()), point)

    def test_a_stitched_prompt_is_decoded_at_its_depth(self):
        result, _ = self.run_json("decode", "--batch-sizes", "2", "--prompt-lengths", "300", "--steps", "2",
                                  "--max-num-batched-tokens", "64", "--stitched-prompts")
        self.assertGreater(result["points"][0]["seconds"]["median"], 0)

    def test_sources_are_held_against_the_first(self):
        result, table = self.run_json("sources", "--sources", "resident,shm,remote", "--prompt-length", "9",
                                      "--steps", "2")
        self.assertEqual([point["source"] for point in result["points"]],
                         ["resident", "shm", "remote", "resident, one token"])
        self.assertEqual(result["points"][0]["step_ratio"]["rounds"], [1, 1])
        for point in result["points"]:
            self.assertGreater(point["step_stalled_seconds"]["median"], 0)
            self.assertLess(point["step_stalled_seconds"]["median"], point["step_seconds"]["median"])
        self.assertEqual(len(table.splitlines()), 1 + 4)

    def test_prefill_flops_grow_with_the_tokens(self):
        result, _ = self.run_json("prefill", "--prompt-lengths", "4,8")
        short, long = result["points"]
        with open(os.path.join(server.MODEL, "config.json")) as file:
            config = json.load(file)
        head = 2 * config["vocab_size"] * config["hidden_size"]  # once, for the last token
        weights = [point["flops"] - point["attention_flops"] - head for point in (short, long)]
        self.assertEqual(weights[1], 2 * weights[0])
        # Every pair of a token and one before it, or itself: all are selected.
        pair = 2 * config["num_attention_heads"] * (
            config["qk_nope_head_dim"] + config["qk_rope_head_dim"] + config["v_head_dim"])
        for point in (short, long):
            tokens = point["prompt_tokens"]
            self.assertEqual(point["attention_flops"],
                             config["num_hidden_layers"] * pair * tokens * (tokens + 1) // 2)
        self.assertEqual(len(result["multiply_adds_per_s"]["rounds"]), 2)

    def test_engram_relates_every_source_to_the_raw_rate(self):
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "result.json")
            run = bench("engram", "--table-mib", "4", "--cache-mib", "8", "--num-shards", "3", "--tokens", "1,8",
                        "--rounds", "2", "--output-json", path)
            self.assertEqual(run.returncode, 0, run.stderr)
            with open(path) as file:
                result = json.load(file)
        names = [(point["source"], point["rows"]) for point in result["points"]]
        self.assertEqual(names, [(source, 24 * tokens) for tokens in (1, 8)
                                 for source in ("resident", "shm", "remote", "cached")])
        raw = {point["rows"]: point["seconds"]["rounds"] for point in result["raw"]}
        for point in result["points"]:
            self.assertEqual(point["bytes"], 264 * point["rows"])
            for seconds, share, of in zip(point["seconds"]["rounds"], point["share"]["rounds"], raw[point["rows"]]):
                self.assertAlmostEqual(share, of / seconds)
            self.assertEqual(point["cache_hit_share"] > 0, point["source"] == "cached", point)
        self.assertEqual(result["hash"]["columns"], 48)
        for rate, share, of in zip(result["hash"]["tokens_per_s"]["rounds"], result["hash"]["share"]["rounds"],
                                   result["remainders_per_s"]["rounds"]):
            self.assertAlmostEqual(share, 48 * rate / of)
        # Random tokens hardly name a row twice, in a table of 15,000 rows too.
        self.assertEqual(len(result["rows_by_shard"]), 3)
        self.assertLessEqual(sum(result["rows_by_shard"]), 24 * 8)
        self.assertGreater(sum(result["rows_by_shard"]), 24 * 7)
        self.assertAlmostEqual(result["shard_skew"], max(result["rows_by_shard"]) / min(result["rows_by_shard"]))
        self.assertEqual(len(run.stdout.splitlines()), 3 + 2 * 5)

    def test_a_repeated_token_asks_for_the_rows_of_one(self):
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "result.json")
            run = bench("engram", "--table-mib", "4", "--tokens", "50", "--rounds", "1", "--token-choice", "repeated",
                        "--sources", "shm", "--output-json", path)
            self.assertEqual(run.returncode, 0, run.stderr)
            with open(path) as file:
                result = json.load(file)
        self.assertEqual(sum(result["rows_by_shard"]), 24)

    def test_kernels_relate_to_both_bounds(self):
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "result.json")
            run = bench("kernels", "--kernels", "bf16,experts-int8", "--rows", "1,4", "--rounds", "2", "--output-json", path)
            self.assertEqual(run.returncode, 0, run.stderr)
            with open(path) as file:
                result = json.load(file)
        matrix = 4096 * 4096
        expert = 3 * 4096 * 2048
        self.assertEqual([(p["kernel"], p["rows"], p["bytes"], p["flops"]) for p in result["points"]], [
            ("bf16", 1, 2 * matrix, 2 * matrix),
            ("bf16", 4, 2 * matrix, 8 * matrix),
            # Six of the 16 experts at one token, all of them at 24 items; 4 bits and a byte of scale for 32 values.
            ("experts-int8", 1, 6 * expert * 17 / 32, 2 * 6 * expert),
            ("experts-int8", 4, 16 * expert * 17 / 32, 2 * 24 * expert)])
        for point in result["points"]:
            peak = result["multiply_adds_per_s" if point["numerics"] == "f32" else "int8_multiply_adds_per_s"]
            for i, seconds in enumerate(point["seconds"]["rounds"]):
                self.assertAlmostEqual(point["read_share"]["rounds"][i],
                                       point["bytes"] / seconds / result["read_bytes_per_s"]["rounds"][i])
                self.assertAlmostEqual(point["multiply_share"]["rounds"][i],
                                       point["flops"] / 2 / seconds / peak["rounds"][i])
        self.assertEqual(len(run.stdout.splitlines()), 1 + 4)

    def test_host_times_text_plans_and_hand_overs(self):
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "result.json")
            text = os.path.join(folder, "text")
            with open(text, "w") as file:
                file.write("one two three four\n" * 50)
            run = bench("host", "--model", server.MODEL, "--text", text, "--sequences", "1,9", "--rounds", "2",
                        "--output-json", path)
            self.assertEqual(run.returncode, 0, run.stderr)
            with open(path) as file:
                result = json.load(file)
        self.assertEqual(result["text_bytes"], 950)
        self.assertGreaterEqual(result["text_tokens"], 50 * 4)
        self.assertLess(result["text_tokens"], 950)
        self.assertEqual([plan["sequences"] for plan in result["plans"]], [1, 9])
        for i in range(2):
            self.assertAlmostEqual(result["encode_share"]["rounds"][i],
                                   result["encode_bytes_per_s"]["rounds"][i] / result["read_bytes_per_s"]["rounds"][i])
            self.assertAlmostEqual(result["hand_over_share"]["rounds"][i],
                                   result["round_trip_seconds"]["rounds"][i] / result["hand_over_seconds"]["rounds"][i])
        self.assertEqual(len(run.stdout.splitlines()), 1 + 2 + 2 + 1)

    def test_mistakes_are_named(self):
        for arguments, message in (
                (("decode",), "model folder is missing"),
                (("decode", server.MODEL, "--batch-sizes", "1,x"), "--batch-sizes 1,x"),
                (("decode", server.MODEL, "--batch-sizes", "0"), "from 1 to"),
                (("prefill", server.MODEL, "--prompt-lengths", ","), "--prompt-lengths"),
                (("prefill", server.MODEL, "--tensor-parallel-size", "2"), "2 ranks"),
                (("kernels", "--kernels", "bf16,int4"), '"int4", expected bf16, fp8, mxfp4, experts, experts-int8'),
                (("kernels", "--rows", "5000"), "from 1 to 4096"),
                (("host",), "model folder is missing"),
                (("host", server.MODEL, "--sequences", "0"), "from 1 to 4096"),
                (("host", server.MODEL, "--text", "/nonexistent/text"), "/nonexistent/text"),
                (("engram", "--tokens", "1,,2"), "--tokens 1,,2"),
                (("engram", "--sources", "resident,disk"), '"disk", expected resident, shm, remote, cached'),
                (("engram", "--token-choice", "words"), "token-choice"),
                (("engram", "--table-mib", "0"), "table-mib"),
                (("nothing",), "expected one of serve, decode, prefill, kernels, engram, sources, host")):
            run = bench(*arguments)
            self.assertEqual(run.returncode, 2, (arguments, run.stderr))
            self.assertIn(message, run.stderr)


if __name__ == "__main__":
    server.main()
