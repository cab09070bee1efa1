"""The model of the FP8 products of kernels/cuda/fp8_gemm.cu: which tile a shape gets, as fp8_gemm_config.cc decides, and what bounds it.

Imported by cuda_roofline.py. Nothing here was measured.
"""

import dataclasses
import math
import re

BLOCK = 128           # inputs that share a scale
SHARED = 227 * 1024   # of a block
MAX_STAGES = 8

TITLE = """\
## The FP8 products of fp8_gemm.cu

The same steps, on the tensor cores (predicted, not measured). Activations come as e4m3 with a scale for each 128; the time of rounding them is not in the table. Grouped forms
have every expert's rows at their mean. Bounds: HBM; L2, which every tile's copies cross; the tensor cores at 1979 TFLOP/s, tiles and waves that are not full included; latency, with all stages
of the resident block in flight at 0.7 us. 100 % says that nothing but that bound is foreseen, not that a kernel gets there: DeepGEMM reports 1.7 to 2.7 TB/s at 64 tokens (below).

| model | product | step | tile, outputs x tokens | MB | GFLOP | roofline, us | predicted, us | share | bound by |
|---|---|---|---|---|---|---|---|---|---|
"""


@dataclasses.dataclass(frozen=True)
class Product:
    """`tokens` of each of `groups` times that group's weights."""
    name: str
    tokens: int
    outputs: int
    inputs: int
    groups: int = 1

    @property
    def flops(self):
        return 2 * self.groups * self.tokens * self.outputs * self.inputs

    @property
    def bytes(self):
        weights = self.outputs * self.inputs * (1 + 4 / BLOCK / BLOCK)
        return self.groups * (weights + self.tokens * self.inputs * (1 + 4 / BLOCK) + 4 * self.tokens * self.outputs)


@dataclasses.dataclass(frozen=True)
class Tile:
    outputs: int
    tokens: int
    stages: int = 0

    @property
    def stage_bytes(self):
        return (self.outputs + self.tokens) * BLOCK + max(BLOCK, 4 * self.tokens)

    def shared(self, inputs):
        return self.stages * self.stage_bytes + fixed(inputs, self.stages)


def fixed(inputs, stages):
    return -(-math.ceil(inputs / BLOCK) * 4 // 8) * 8 + 16 * stages


def choose(op, multiprocessors):
    """ChooseFp8Gemm."""
    tokens = 16 if op.tokens <= 16 else 64 if op.tokens <= 64 else 128
    tiles = math.ceil(op.outputs / 128) * op.groups
    tile = Tile(64 if tokens == 16 and tiles < multiprocessors else 128, tokens)
    stages = min(MAX_STAGES, (SHARED - fixed(op.inputs, MAX_STAGES)) // tile.stage_bytes)
    return dataclasses.replace(tile, stages=stages)


def launch_of(kernel):
    """Of a kernel by its name: threads, and shared memory at the largest number of inputs of the models."""
    import cuda_roofline  # pylint: disable=import-outside-toplevel,cyclic-import
    match = re.fullmatch(r"Fp8GemmKernel<(\d+),(\d+)>", kernel)
    if match is None:
        return cuda_roofline.Launch(256, 0)  # QuantizeTokensKernel
    consumers, tokens = int(match.group(1)), int(match.group(2))
    tile = Tile(64 * consumers, tokens)
    stages = min(MAX_STAGES, (SHARED - fixed(16384, MAX_STAGES)) // tile.stage_bytes)
    return cuda_roofline.Launch(128 * consumers + 32, dataclasses.replace(tile, stages=stages).shared(16384))


def bounds(op, tile, multiprocessors, machine):
    """{what: seconds}."""
    blocks = op.groups * math.ceil(op.outputs / tile.outputs) * math.ceil(op.tokens / tile.tokens)
    of_block = math.ceil(op.inputs / BLOCK) * tile.stage_bytes
    waves = math.ceil(blocks / multiprocessors)
    in_flight = tile.stages * tile.stage_bytes
    flops = 2 * tile.outputs * tile.tokens * op.inputs
    return {"HBM": op.bytes / machine["hbm"], "L2": blocks * of_block / machine["l2"],
            "tensor cores": waves * flops / (machine["peak"] / multiprocessors),
            "latency": waves * of_block / in_flight * machine["latency"]}
