#!/usr/bin/env python3
"""Decode time at growing depth: runs `tessera bench decode` on made-up weights of V3.2 and
V4-Flash at a small width, with their own heads of the indexer, top-k and latent rows, and
prints a step's time and its stages at each depth, and what a stage adds per 1,000 tokens.
Prompts are stitched, so that depth costs time in proportion.

    benchmarks/depth_scaling.py [--tessera=build/cpu/tessera] [--depths=1024,...,131072]
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile

CONFIGS = "tests/data/configs"
KV_BYTES = 2 << 30  # 128k tokens of the widest model below take 1.1 GB
# What is left of the models: few layers, narrow streams, few experts.
MODELS = {
    "V3.2": ("deepseek_v3.2.json", {
        "hidden_size": 512, "num_hidden_layers": 3, "first_k_dense_replace": 1,
        "intermediate_size": 512, "moe_intermediate_size": 128, "n_routed_experts": 32,
        "n_group": 1, "topk_group": 1, "num_attention_heads": 16,
        "num_key_value_heads": 16, "q_lora_rank": 256, "vocab_size": 4096,
        "num_nextn_predict_layers": 0}),
    "V4-Flash": ("deepseek_v4_flash.json", {
        "hidden_size": 512, "num_hidden_layers": 6, "num_hash_layers": 0,
        "moe_intermediate_size": 128, "n_routed_experts": 32, "num_attention_heads": 16,
        "q_lora_rank": 256, "o_lora_rank": 128, "vocab_size": 4096,
        "num_nextn_predict_layers": 0}),
}


def make_folder(folder, config_file, changes):
    with open(os.path.join(CONFIGS, config_file), encoding="utf-8") as file:
        config = json.load(file)
    config.update(changes)
    if "compress_ratios" in config:
        config["compress_ratios"] = config["compress_ratios"][:changes["num_hidden_layers"]]
    with open(os.path.join(folder, "config.json"), "w", encoding="utf-8") as file:
        json.dump(config, file)


def measure(arguments, folder, output):
    command = [arguments.tessera, "bench", "decode", "--model", folder, "--load-format", "dummy",
               "--batch-sizes", "1", "--prompt-lengths", arguments.depths,
               "--steps", str(arguments.steps), "--rounds", str(arguments.rounds),
               "--kv-cache-memory-bytes", str(KV_BYTES),
               "--stitched-prompts", "--output-json", output]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, timeout=3600)
    with open(output, encoding="utf-8") as file:
        return json.load(file)


def print_table(name, result):
    points = result["points"]
    stages = list(points[0]["stages"])
    print(f"\n{name}, {result['processor']}, {result['threads']} threads, {result['numerics']} "
          f"({result['isa']}); ms of a decode step\n")
    print("| depth | step (min to max) | " + " | ".join(stages) + " |")
    print("|---" * (2 + len(stages)) + "|")
    for point in points:
        seconds = point["seconds"]
        row = [str(point["prompt_tokens"]),
               f"{seconds['median'] * 1e3:.3f} ({seconds['min'] * 1e3:.3f} to "
               f"{seconds['max'] * 1e3:.3f})"]
        row += [f"{point['stages'].get(stage, 0) * 1e3:.3f}" for stage in stages]
        print("| " + " | ".join(row) + " |")
    # Once what is selected has its full size, between the fourth depth and the last.
    first, last = points[min(3, len(points) - 1)], points[-1]
    tokens = (last["prompt_tokens"] - first["prompt_tokens"]) / 1000
    if tokens > 0:
        growth = [(last["stages"].get(stage, 0) - first["stages"].get(stage, 0)) / tokens * 1e6
                  for stage in stages]
        step = (last["seconds"]["min"] - first["seconds"]["min"]) / tokens * 1e6
        print("| us per 1,000 tokens | " + " | ".join(f"{value:.2f}" for value in [step] + growth)
              + " |", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tessera", default="build/cpu/tessera", help="the binary")
    parser.add_argument("--depths", default="1024,2048,4096,8192,16384,32768,65536,131072")
    parser.add_argument("--steps", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--models", default=",".join(MODELS))
    arguments = parser.parse_args()
    for name in arguments.models.split(","):
        with tempfile.TemporaryDirectory() as folder:
            make_folder(folder, *MODELS[name])
            print_table(name, measure(arguments, folder, os.path.join(folder, "result.json")))
    return 0


if __name__ == "__main__":
    sys.exit(main())
