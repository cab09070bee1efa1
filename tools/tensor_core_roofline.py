"""The model of the products of kernels/cuda/products/fp8_gemm.cu and fp4_gemm.cu: which tile a shape gets, as their configs decide, and what bounds it.

Imported by cuda_roofline.py. Nothing here was measured.
"""

import dataclasses
import math
import re

BLOCK = 128           # inputs that share a scale
SHARED = 227 * 1024   # of a block
MAX_STAGES = 8

TITLE = """\
## The products of fp8_gemm.cu and fp4_gemm.cu

The same steps, on the tensor cores (predicted, not measured). Activations come as e4m3 with a scale for each 128; the time of rounding them is not in the table. Grouped forms
have every expert's rows at their mean. Bounds: HBM; L2, which every tile's copies cross; the tensor cores at 1979 TFLOP/s, tiles and waves that are not full included; latency, with all stages
of the resident block in flight at 0.7 us (FP4: all but two); of FP4, whose codes are expanded and whose sums are scaled each 32 inputs, instructions, four a clock and SM. 100 % says that nothing but that bound is foreseen, not that a kernel gets there: DeepGEMM reports 1.7 to 2.7 TB/s at 64 tokens (below).

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
    fp4: bool = False

    @property
    def flops(self):
        return 2 * self.groups * self.tokens * self.outputs * self.inputs

    @property
    def bytes(self):
        weights = self.outputs * self.inputs * (1 / 2 + 1 / 32 if self.fp4 else 1 + 4 / BLOCK / BLOCK)
        return self.groups * (weights + self.tokens * self.inputs * (1 + 4 / BLOCK) + 4 * self.tokens * self.outputs)


@dataclasses.dataclass(frozen=True)
class Tile:
    outputs: int
    tokens: int
    stages: int = 0
    fp4: bool = False

    @property
    def stage_bytes(self):
        return self.outputs * (BLOCK // 2 if self.fp4 else BLOCK) + self.tokens * BLOCK + max(BLOCK, 4 * self.tokens)

    @property
    def threads(self):
        return 2 * self.outputs + (128 if self.fp4 else 32)

    def fixed(self, inputs, stages):
        blocks = math.ceil(inputs / BLOCK)
        if self.fp4:
            return 2 * self.outputs * BLOCK + self.outputs * 4 * (blocks | 1) + 8 * (stages + 4)
        return 8 * blocks + 16 * stages

    def with_stages(self, inputs):
        stages = min(MAX_STAGES, (SHARED - self.fixed(inputs, MAX_STAGES)) // self.stage_bytes)
        return dataclasses.replace(self, stages=stages)

    def shared(self, inputs):
        return self.stages * self.stage_bytes + self.fixed(inputs, self.stages)

    @property
    def instructions(self):
        """Of all warps for a block of inputs, where that can be the bound: fp4_gemm.cu counts them."""
        consumers = self.outputs // 16 * (5 * self.tokens // 2 + 40)
        return consumers + self.outputs * 4 // 32 * 45 if self.fp4 else 0


def choose(op, multiprocessors):
    """ChooseFp8Gemm, ChooseFp4Gemm."""
    tokens = 16 if op.tokens <= 16 else 64 if op.tokens <= 64 or op.fp4 else 128
    tiles = math.ceil(op.outputs / 128) * op.groups
    tile = Tile(64 if tokens == 16 and tiles < multiprocessors else 128, tokens, fp4=op.fp4)
    return tile.with_stages(op.inputs)


def launch_of(kernel):
    """Of a kernel by its name: threads, and shared memory at the largest number of inputs of the models."""
    import cuda_roofline  # pylint: disable=import-outside-toplevel,cyclic-import
    match = re.fullmatch(r"Fp([48])GemmKernel<(\d+),(\d+)>", kernel)
    if match is None:
        return cuda_roofline.Launch(256, 0)  # SumLeavesKernel
    fp4 = match.group(1) == "4"
    inputs = 7168 if fp4 else 16384
    tile = Tile(64 * int(match.group(2)), int(match.group(3)), fp4=fp4).with_stages(inputs)
    return cuda_roofline.Launch(tile.threads, tile.shared(inputs))


def bounds(op, tile, multiprocessors, machine):
    """{what: seconds}."""
    blocks = op.groups * math.ceil(op.outputs / tile.outputs) * math.ceil(op.tokens / tile.tokens)
    of_block = math.ceil(op.inputs / BLOCK) * tile.stage_bytes
    waves = math.ceil(blocks / multiprocessors)
    in_flight = (tile.stages - (2 if tile.fp4 else 0)) * tile.stage_bytes
    flops = 2 * tile.outputs * tile.tokens * op.inputs
    return {"HBM": op.bytes / machine["hbm"], "L2": blocks * of_block / machine["l2"],
            "tensor cores": waves * flops / (machine["peak"] / multiprocessors),
            "latency": waves * of_block / in_flight * machine["latency"],
            "instructions": waves * math.ceil(op.inputs / BLOCK) * tile.instructions / 4 / machine["clock"]}
