"""The model behind docs/cuda_kernels.md: Hopper's limits, launches of the kernels, bytes and FLOPs at the shapes of published models.

Imported by cuda_kernels.py. Nothing here was measured: a predicted share is what the model below says of the portable kernels.
Shapes come from tests/data/configs, block sizes from the .cu files.
"""

import dataclasses
import json
import math
import re

import mla_roofline
import tensor_core_roofline

# Hopper, compute capability 9.0: NVIDIA, "Hopper Tuning Guide" 1.4.1 (occupancy, shared memory).
MAX_WARPS, MAX_BLOCKS, REGISTERS, SHARED = 64, 32, 64 * 1024, 228 * 1024
SHARED_OF_SYSTEM = 1024  # of each block, same guide
REGISTERS_GRAIN = 256    # registers are given to a warp in such units: "CUDA Occupancy Calculator", compute capability 9.0
# H100 SXM5, dense: NVIDIA, "H100 Tensor Core GPU" data sheet and architecture white paper.
MULTIPROCESSORS, CLOCK = 132, 1.755e9
HBM = 3.35e12
PEAK = {"fp8": 1979e12, "bf16": 989e12, "f32": 67e12}
LANES = 128  # of an SM: instructions of threads per clock

# Assumptions of the prediction.
L2 = 5.5e12       # bytes/s that L2 gives, about 1.6 of HBM: published micro-benchmarks of H100 have 5.5 to 5.7 TB/s
LATENCY = 0.7e-6  # of a load that misses, seconds, under load
# Instructions of a thread per multiply-add of the portable inner loops: two loads with 64-bit addresses, the format's decoding, the
# step of the loop. A scale's place is two divisions of 64-bit numbers, some 70 instructions each, of which one is the row's alone.
INSTRUCTIONS = {"fp8": 90, "fp4": 95, "bf16": 14, "f32": 10}

CONTEXT = 8192
ROWS = {"decode": 64, "prefill": 2048}  # rows of a step on one GPU
EP = 8                                  # GPUs that share the experts

MODELS = ("deepseek_v3", "deepseek_v4_flash", "deepseek_v4.1_flash", "v4_mla_1t_32b_active")

INTRODUCTION = """\
# CUDA kernels: resources and roofline

Made by `tools/cuda_kernels.py` from what nvcc 13.0 compiled for `sm_90a`; with `--check` it compares the set of kernels and refuses local
memory. The test `cuda_kernels_check` runs that where the objects were built: `./dev test --all` builds them where it finds nvcc, `./dev test` leaves those minutes out and
counts the check as skipped.
**Nothing here was measured on a GPU.** Registers, shared and local memory are the compiler's; occupancy follows from them and Hopper's limits (64 warps, 32 blocks,
65,536 registers and 228 KiB of shared memory an SM, 1 KiB of it a block's own: NVIDIA, Hopper Tuning Guide); dynamic shared memory is that of the largest model below.
The kernels of fp4_gemm.cu, fp8_gemm.cu and mla_decode.cu are those of [design note 0010](design/0010-hopper-kernels.md), on tensor cores and bulk copies; all others are the portable ones of
[0008](design/0008-cuda-and-its-simulator.md), without either, by design. The first two are used by
numerics fp8-g128, which is not the default; the last is used by no backend so far.

## Resources
"""

PUBLISHED = """\
## Published figures of others

What kernels bound to the architecture reach, by their authors, as a measure for the rows above. None was repeated here.

| kernel | hardware | figure | source |
|---|---|---|---|
| DeepGEMM, FP8 dense, M = 64 | H800 | 206 to 336 TFLOP/s at 1.7 to 2.7 TB/s | deepseek-ai/DeepGEMM, first README |
| DeepGEMM, FP8 dense, M = 4096 | H800 | 590 to 1358 TFLOP/s; later up to 1550 | the same; README news |
| DeepGEMM, FP8 grouped contiguous, N 4096, K 7168 | H800 | 1288 to 1297 TFLOP/s | first README |
| DeepGEMM, FP8 grouped masked, 4 x 256 rows | H800 | 815 to 932 TFLOP/s at about 2.05 TB/s | first README |
| FlashMLA, dense decode | H800 | up to 3000 GB/s where memory bounds it, 660 TFLOP/s where arithmetic does | deepseek-ai/FlashMLA, README |
| FlashMLA, sparse decode, FP8 KV | H800 | 410 TFLOP/s | the same |
| FlashMLA, sparse prefill | H800 | 640 TFLOP/s | the same |
| DeepEP V1, low latency, EP8, 128 tokens | H800, NVLink | dispatch 77 us (98 GB/s), combine 114 us (127 GB/s) | deepseek-ai/DeepEP, docs/legacy.md |
| DeepEP V1, low latency, EP64 | H800, 400 Gb/s | dispatch 173 us (43 GB/s), combine 314 us (46 GB/s) | the same |
| DeepEP V2, 8 x 2 ranks | SM90, CX7 | dispatch 90 GB/s, combine 81 GB/s, logical | deepseek-ai/DeepEP, README |
"""


@dataclasses.dataclass(frozen=True)
class Launch:
    threads: int  # of a block
    shared: int   # dynamic shared memory of a block, bytes, at most at these models


@dataclasses.dataclass(frozen=True)
class Occupancy:
    blocks: int  # of an SM
    share: float
    limit: str


@dataclasses.dataclass(frozen=True)
class Op:
    """One op of a step. `bytes` must cross HBM once; `traffic` is what the kernel asks L2 for."""
    name: str
    kernel: str
    blocks: int  # of the grid
    bytes: float
    traffic: float
    flops: float
    format: str   # of the values that it multiplies: decides the peak
    instructions: float  # of a thread per multiply-add
    load_bytes: float    # of a thread's load


def round_up(value, grain):
    return -(-value // grain) * grain


def occupancy(threads, registers, shared):
    """Resident blocks of an SM."""
    warps = -(-threads // 32)
    limits = {"threads": MAX_WARPS // warps, "blocks": MAX_BLOCKS,
              "registers": REGISTERS // (round_up(32 * registers, REGISTERS_GRAIN) * warps),
              "shared memory": SHARED // (round_up(shared, 128) + SHARED_OF_SYSTEM)}
    limit = min(limits, key=limits.get)
    return Occupancy(limits[limit], limits[limit] * warps / MAX_WARPS, limit)


def constant(text, name):
    match = re.search(rf"constexpr \w+ {name} = ([\w *+]+);", text)
    if match is None:
        raise ValueError(f"no constant {name}")
    return eval_constant(text, match.group(1))


def eval_constant(text, expression):
    """A product of numbers and of constants of the same file."""
    value = 1
    for factor in expression.split("*"):
        factor = factor.strip()
        value *= int(factor) if factor.isdigit() else constant(text, factor)
    return value


def launch_of(root, source, kernel):
    """How the op of `source` launches the kernel."""
    folder = root / "kernels/cuda"
    if kernel in ("MlaAttentionKernel", "SharedKvAttentionKernel"):
        text = (folder / "primitives/softmax_rows.cuh").read_text(encoding="utf-8")
        return Launch(constant(text, "kSoftmaxThreads"), constant(text, "kSoftmaxSharedBytes"))
    if source in ("fp4_gemm.cu", "fp8_gemm.cu"):
        return tensor_core_roofline.launch_of(kernel)
    if source == "mla_decode.cu":
        shared = {"MlaDecodeKernel<BulkRows>": mla_roofline.SHARED, "MlaDecodeKernel<PackedRows>": mla_roofline.PACKED_SHARED}
        return Launch(128 if kernel == "MergeSplitsKernel" else 256, shared.get(kernel, 0))
    threads = constant(next(folder.rglob(source)).read_text(encoding="utf-8"), "kBlock")
    configs = [config_of(root, name) for name in MODELS]
    if kernel == "ExpertKernel":
        return Launch(threads, max(4 * config["moe_intermediate_size"] for config in configs))
    if kernel in ("ListExpertItemsKernel", "CountExpertsKernel"):  # a word an expert; and the tile
        tile = constant((folder / source).read_text(encoding="utf-8"), "kTile") if kernel == "ListExpertItemsKernel" else 0
        return Launch(threads, max(4 * (tile + config["n_routed_experts"]) for config in configs))
    if kernel == "RouteKernel":
        return Launch(threads, max(4 * (3 * config["n_routed_experts"] + 2 * config.get("n_group", 1) + config["num_experts_per_tok"])
                                   for config in configs))
    if kernel == "IndexerSelectKernel":
        def shortlist(capacity):
            return 4 * (2 * capacity + 256 + 2)
        return Launch(threads, max(shortlist(config.get("index_topk", 0) + 1024) +
                                   (shortlist(config["candidate_topk_blocks"] + 1024) if "candidate_topk_blocks" in config else 0)
                                   for config in configs))
    return Launch(threads, 0)


def config_of(root, name):
    config = json.loads((root / f"tests/data/configs/{name}.json").read_text(encoding="utf-8"))
    return {**config, **config.get("text_config", {})}


def bits_of(config, part):
    """(bytes of a value, format) of a model's experts or of its other matrices."""
    quantization = config["quantization_config"]
    expert = config.get("expert_dtype", quantization.get("expert_dtype"))
    if part == "experts" and expert == "fp4":
        return 0.5 + 1 / 32, "fp4"
    scale = 1 if quantization.get("scale_fmt") == "ue8m0" else 4
    rows, cols = quantization["weight_block_size"]
    return 1 + scale / (rows * cols), "fp8"


def linear(name, rows, inputs, outputs, value):
    size, kind = value
    weights = inputs * outputs * size
    return Op(name, "LinearKernel", math.ceil(outputs / 16) * rows, weights + 4 * rows * (inputs + outputs), rows * weights,
              2 * rows * inputs * outputs, "fp8", INSTRUCTIONS[kind], max(size, 0.5))


def attention(name, kernel, rows, heads, width, values, seen):
    """`seen` rows of the cache of `width` float32 values, of which `values` are summed."""
    queries = rows * heads
    row_bytes = 4 * width
    return Op(name, kernel, queries, rows * (seen * row_bytes + 4 * heads * (width + values)), queries * seen * 4 * (width + values),
              2 * queries * seen * (width + values), "bf16", INSTRUCTIONS["f32"], 4)


def each_value(name, kernel, values, reads_and_writes, flops):
    return Op(name, kernel, math.ceil(values / 256), 4 * values * reads_and_writes, 4 * values * reads_and_writes, values * flops,
              "f32", INSTRUCTIONS["f32"], 4)


def attention_ops(config, rows):
    heads, hidden, value = config["num_attention_heads"], config["hidden_size"], bits_of(config, "dense")
    ops = [linear("q_a projection", rows, hidden, config["q_lora_rank"], value)]
    if "kv_lora_rank" in config:
        latent, rope, nope = config["kv_lora_rank"], config["qk_rope_head_dim"], config["qk_nope_head_dim"]
        seen = min(CONTEXT, config.get("index_topk", CONTEXT))
        absorb = heads * nope * latent
        ops += [linear("q_b projection", rows, config["q_lora_rank"], heads * (nope + rope), value),
                Op("absorption of W_uk", "HeadLinearTransposedKernel", math.ceil(latent / 256) * rows * heads,
                   absorb * value[0] + 4 * rows * heads * (nope + latent), rows * absorb * value[0], 2 * rows * absorb, "fp8",
                   INSTRUCTIONS[value[1]], 1),
                attention(f"MLA over {seen} rows", "MlaAttentionKernel", rows, heads, latent + rope, latent, seen),
                linear("output projection", rows, heads * config["v_head_dim"], hidden, value)]
    else:
        width = config["head_dim"]
        seen = config["sliding_window"] + config["index_topk"]
        ops += [linear("q_b projection", rows, config["q_lora_rank"], heads * width, value),
                attention(f"window and {config['index_topk']} entries", "SharedKvAttentionKernel", rows, heads, width, width, seen),
                linear("output projection (wo_b)", rows, config["o_groups"] * config["o_lora_rank"], hidden, value)]
    if "index_topk" in config:
        ratio = min((r for r in config.get("compress_ratios", [1]) if r > 1), default=1)
        entries, indexers, width = CONTEXT // ratio, config["index_n_heads"], config["index_head_dim"]
        ops.append(Op(f"indexer over {entries} entries", "IndexerSelectKernel", rows,
                      rows * 4 * (entries * width + indexers * (width + 1) + config["index_topk"]), rows * entries * indexers * 4 * width,
                      2 * rows * entries * indexers * (width + 1), "fp8", INSTRUCTIONS["f32"], 4))
    return ops


def expert_ops(config, rows):
    hidden, width, picks = config["hidden_size"], config["moe_intermediate_size"], config["num_experts_per_tok"]
    experts = config["n_routed_experts"]
    size, kind = bits_of(config, "experts")
    items, local = rows * picks, experts // EP  # each GPU gets as many items as it sends
    touched = local * (1 - (1 - 1 / local) ** items)
    weights = 3 * hidden * width * size
    return [Op("router", "RouteKernel", rows, 2 * experts * hidden + 4 * rows * (hidden + 2 * picks), 2 * rows * experts * hidden,
               2 * rows * experts * hidden, "bf16", INSTRUCTIONS["bf16"], 2),
            # One launch, a block an item.
            Op(f"experts, {items} items of {local}", "ExpertKernel", items, touched * weights + 8 * items * hidden, items * weights,
               6 * items * hidden * width, "fp8", INSTRUCTIONS[kind], max(size, 0.5)),
            each_value("combine", "CombineExpertsKernel", rows * hidden, picks + 1, 2 * picks)]


def residual_ops(config, rows):
    hidden = config["hidden_size"]
    norm = Op("RMS norm", "RmsNormKernel", math.ceil(rows / 8), 8 * rows * hidden, 12 * rows * hidden, 4 * rows * hidden, "f32",
              INSTRUCTIONS["f32"], 4)
    if "hc_mult" not in config:
        return [norm]
    streams = config["hc_mult"]
    outputs = streams * (streams + 2)
    return [norm,
            Op("mHC coefficients", "HyperCoefficientsKernel", rows, 4 * streams * hidden * (outputs + rows), 4 * rows * outputs * streams * hidden,
               2 * rows * outputs * streams * hidden, "f32", INSTRUCTIONS["f32"], 4),
            each_value("mHC expand", "HyperExpandKernel", rows * hidden, 2 * streams + 1, 2 * streams * (streams + 1))]


def ops_of(config, rows):
    return residual_ops(config, rows) + attention_ops(config, rows) + expert_ops(config, rows)


def roofline_seconds(op):
    return max(op.bytes / HBM, op.flops / PEAK[op.format])


def predicted_seconds(op, fit, threads):
    """(seconds, what bounds them) of the portable kernel with this occupancy."""
    resident = fit.blocks * MULTIPROCESSORS
    blocks = min(op.blocks, resident)
    multiprocessors = min(op.blocks, MULTIPROCESSORS)
    # The last wave of blocks takes as long as a full one.
    waves = op.blocks / resident
    tail = math.ceil(waves) / waves if waves > 1 else 1
    bounds = {"HBM": op.bytes / HBM, "L2": op.traffic / L2,
              "instructions": tail * op.flops / 2 * op.instructions / (multiprocessors * LANES * CLOCK),
              "latency": tail * op.traffic / (blocks * threads * op.load_bytes) * LATENCY}
    bound = max(bounds, key=bounds.get)
    return bounds[bound], bound


def roofline_lines(root, resources):
    """Markdown of the second part. `resources` has registers and static shared memory by kernel."""
    lines = ["## Bytes, FLOPs and the predicted share of the roofline", "",
             f"One GPU of {EP} that share the experts, a step of {ROWS['decode']} rows (decode) or {ROWS['prefill']} (prefill), {CONTEXT:,} tokens "
             "of context, activations and caches in float32 as the portable backend has them. The roofline is the larger of bytes / 3.35 TB/s and "
             "FLOPs / peak (1979 TFLOP/s for FP8 and FP4 weights, 989 for BF16 and attention, 67 for float32: NVIDIA's H100 SXM data sheet). "
             "The predicted time is the largest of four bounds: those bytes through HBM; what the kernel asks for, since it reads weights and rows "
             f"anew for every row or head, through L2 at {L2 / 1e12} TB/s; instructions, at {INSTRUCTIONS['f32']} (float32) to "
             f"{INSTRUCTIONS['fp4']} (FP4, whose scale is found by 64-bit division) for each multiply-add and 128 lanes an SM at 1.755 GHz; and latency, one load a "
             f"thread in flight at {LATENCY * 1e6} us. It is a model with round assumptions, pessimistic where loads hit a cache (each is charged a miss), good for telling which kernel is furthest from the roofline and why.", ""]
    for name in MODELS:
        config = config_of(root, name)
        lines += [f"### {name}", "", "| op | kernel | step | MB | GFLOP | roofline, us | predicted, us | share | bound by |",
                  "|---|---|---|---|---|---|---|---|---|"]
        for step, rows in ROWS.items():
            for op in ops_of(config, rows):
                used = resources[op.kernel]
                launch = launch_of(root, SOURCES[op.kernel], op.kernel)
                fit = occupancy(launch.threads, used.registers, used.shared + launch.shared)
                ideal = roofline_seconds(op)
                seconds, bound = predicted_seconds(op, fit, launch.threads)
                lines.append(f"| {op.name} | {op.kernel} | {step} | {op.bytes / 1e6:.1f} | {op.flops / 1e9:.1f} | {ideal * 1e6:.1f} | "
                             f"{seconds * 1e6:.0f} | {100 * ideal / seconds:.2g} % | {bound} |")
        lines.append("")
    machine = {"hbm": HBM, "peak": PEAK["bf16"], "clock": CLOCK}
    return lines + tensor_core_lines(root) + [""] + mla_roofline.lines(MULTIPROCESSORS, machine)


def tensor_core_lines(root):
    """Markdown of the part about fp8_gemm.cu and fp4_gemm.cu: the projections and experts of each model."""
    lines = tensor_core_roofline.TITLE.splitlines()
    for name in MODELS:
        config = config_of(root, name)
        for step, rows in ROWS.items():
            for op in tensor_core_ops(config, rows):
                tile = tensor_core_roofline.choose(op, MULTIPROCESSORS)
                ideal = max(op.bytes / HBM, op.flops / PEAK["fp8"])
                bounds = tensor_core_roofline.bounds(op, tile, MULTIPROCESSORS,
                                                     {"hbm": HBM, "l2": L2, "peak": PEAK["fp8"], "latency": LATENCY,
                                                      "clock": CLOCK})
                bound = max(bounds, key=bounds.get)
                lines.append(f"| {name} | {op.name} | {step} | {tile.outputs} x {tile.tokens} | {op.bytes / 1e6:.1f} | {op.flops / 1e9:.1f} | "
                             f"{ideal * 1e6:.1f} | {bounds[bound] * 1e6:.0f} | {100 * ideal / bounds[bound]:.0f} % | {bound} |")
    return lines


def tensor_core_ops(config, rows):
    """The products of a step whose weights are FP8, or FP4 experts."""
    hidden, heads = config["hidden_size"], config["num_attention_heads"]
    per_head = config["qk_nope_head_dim"] + config["qk_rope_head_dim"] if "kv_lora_rank" in config else config["head_dim"]
    back = heads * config["v_head_dim"] if "kv_lora_rank" in config else config["o_groups"] * config["o_lora_rank"]
    product = tensor_core_roofline.Product
    ops = [product("q_a projection", rows, config["q_lora_rank"], hidden), product("q_b projection", rows, heads * per_head, config["q_lora_rank"]),
           product("output projection", rows, hidden, back)]
    local = config["n_routed_experts"] // EP
    items = math.ceil(rows * config["num_experts_per_tok"] / local)
    fp4 = bits_of(config, "experts")[1] == "fp4"
    kind = "FP4 experts" if fp4 else "experts"
    ops += [product(f"{kind}, gate and up", items, 2 * config["moe_intermediate_size"], hidden, local, fp4),
            product(f"{kind}, down", items, hidden, config["moe_intermediate_size"], local, fp4)]
    return ops


SOURCES = {"LinearKernel": "linear.cu", "HeadLinearTransposedKernel": "linear.cu", "MlaAttentionKernel": "attention.cu",
           "SharedKvAttentionKernel": "attention.cu", "IndexerSelectKernel": "indexer.cu", "RouteKernel": "route.cu",
           "ExpertKernel": "grouped_experts.cu", "CombineExpertsKernel": "streams.cu", "RmsNormKernel": "rows.cu",
           "HyperCoefficientsKernel": "hyper.cu", "HyperExpandKernel": "streams.cu"}
