"""The model of the MLA decode of kernels/cuda/mla/mla_decode.cu: what bounds it at V3's shapes, and what the size of a split costs.

Imported by cuda_roofline.py. Nothing here was measured.
"""

import dataclasses
import math

LATENT, ROPE = 512, 64
TILE_ROWS, TILE_HEADS, STAGES = 64, 64, 2
SPLIT_ROWS = 1024
TILE_BYTES = TILE_ROWS * (LATENT + ROPE) * 2
SHARED = (1 + STAGES) * TILE_BYTES + (STAGES + 1) * TILE_HEADS * 4 + 8 * 8
PACKED_SHARED = SHARED + 4 * SPLIT_ROWS
ROW_BYTES = {"bf16": 2 * (LATENT + ROPE), "fp8": LATENT + 4 * 4 + 2 * ROPE}

# Clocks of a tile, from the rates of Hopper's parts. Tensor cores: 2 x 1024 BF16 multiply-adds a clock. Weights: 64 x 64 scores, some 14
# instructions each, on the 128 lanes of which one warpgroup fills; 32 powers of 2 a thread at 16 a clock of an SM; factors for 64 x 512
# sums. Barriers and the latency of products and shuffles between them: an assumption, 400.
MULTIPLY_ADDS = 2048
KEYS = TILE_HEADS * TILE_ROWS * (LATENT + ROPE) // MULTIPLY_ADDS
VALUES = TILE_HEADS * TILE_ROWS * LATENT // MULTIPLY_ADDS
WEIGHTS = TILE_HEADS * TILE_ROWS * 14 // 128 + TILE_HEADS * LATENT // 128
WAITS = 400
# Packed rows: the second warpgroup turns 64 x 512 codes to BF16, 3.3 instructions each as nvcc makes them, on 128 lanes, after two rounds of
# loads of 0.7 us at 1.755 GHz.
CONVERT = TILE_ROWS * LATENT * 33 // 10 // 128
LOADS = 2 * 1228
# The first warpgroup's turn, beside which the second's values run; with packed rows the longer of it and the second's.
TILE_CLOCKS = {"bf16": KEYS + WEIGHTS + VALUES // 2 + WAITS}
TILE_CLOCKS["fp8"] = max(TILE_CLOCKS["bf16"], LOADS + CONVERT + VALUES // 2 + WAITS)

CASES = [("tp 1", 128, 64, 8192), ("tp 8", 16, 64, 8192), ("tp 1", 128, 64, 1024), ("tp 1", 128, 1, 8192), ("tp 8", 16, 1, 8192),
         ("tp 8", 16, 1, 131072)]
# Packed rows: all that a token sees, and V3.2's selection of 2048.
PACKED_CASES = [("tp 1", 128, 64, 8192), ("tp 1", 128, 64, 2048), ("tp 8", 16, 64, 2048)]

TITLE = """\
## MLA decode of mla_decode.cu

V3's heads; a cache row is 512 + 64 values in BF16, or packed with FP8 codes (predicted, not measured). The roofline is the larger of rows, queries and results through HBM and of FLOPs at 989 TFLOP/s.
Predicted is the largest of three bounds. HBM: the same bytes and the partial results of splits, written and read. Tensor cores: tiles of 64 heads, full or not. Chain: a block's tiles one
after the other, {clocks} clocks each ({keys} keys, {weights} weights and factors, {half} its half of the values, {waits} barriers and latencies), over waves of blocks of 132 SMs. Packed rows:
{packed} clocks, of the second warpgroup ({loads} two rounds of loads at 0.7 us, {convert} conversion, its half of the values, the same latencies).

| rows | heads | tokens | rows each | split | blocks | MB | GFLOP | roofline, us | predicted, us | share | bound by |
|---|---|---|---|---|---|---|---|---|---|---|---|
"""


@dataclasses.dataclass(frozen=True)
class Decode:
    heads: int
    tokens: int
    rows: int
    split_rows: int = SPLIT_ROWS
    format: str = "bf16"

    @property
    def splits(self):
        return math.ceil(self.rows / self.split_rows)

    @property
    def blocks(self):
        return self.tokens * math.ceil(self.heads / TILE_HEADS) * self.splits

    @property
    def bytes(self):
        return self.tokens * (self.rows * ROW_BYTES[self.format] + self.heads * (2 * (LATENT + ROPE) + 4 * LATENT))

    @property
    def partial_bytes(self):
        """Written once, read once."""
        return 0 if self.splits == 1 else 2 * self.tokens * self.heads * self.splits * 4 * (LATENT + 2)

    @property
    def flops(self):
        return 2 * self.tokens * self.heads * self.rows * (2 * LATENT + ROPE)


def roofline_seconds(decode, machine):
    return max(decode.bytes / machine["hbm"], decode.flops / machine["peak"])


def bounds(decode, multiprocessors, machine):
    """{what: seconds}."""
    tiles = math.ceil(min(decode.split_rows, decode.rows) / TILE_ROWS)
    padded = math.ceil(decode.heads / TILE_HEADS) * TILE_HEADS / decode.heads
    return {"HBM": (decode.bytes + decode.partial_bytes) / machine["hbm"], "tensor cores": decode.flops * padded / machine["peak"],
            "chain": math.ceil(decode.blocks / multiprocessors) * tiles * TILE_CLOCKS[decode.format] / machine["clock"]}


def lines(multiprocessors, machine):
    """Markdown."""
    text = TITLE.format(clocks=TILE_CLOCKS["bf16"], keys=KEYS, weights=WEIGHTS, half=VALUES // 2, waits=WAITS, packed=TILE_CLOCKS["fp8"], loads=LOADS,
                        convert=CONVERT).splitlines()
    decodes = [(name, Decode(heads, tokens, rows, split)) for name, heads, tokens, rows in CASES
               for split in ((512, 1024, 2048) if rows > SPLIT_ROWS else (1024,))]
    decodes += [(name, Decode(heads, tokens, rows, format="fp8")) for name, heads, tokens, rows in PACKED_CASES]
    for name, decode in decodes:
        ideal = roofline_seconds(decode, machine)
        of = bounds(decode, multiprocessors, machine)
        bound = max(of, key=of.get)
        size = f"**{decode.split_rows}**" if decode.split_rows == SPLIT_ROWS else f"{decode.split_rows}"
        text.append(f"| {decode.format} | {decode.heads} ({name}) | {decode.tokens} | {decode.rows} | {size} | {decode.blocks} | {decode.bytes / 1e6:.1f} | "
                    f"{decode.flops / 1e9:.1f} | {ideal * 1e6:.1f} | {of[bound] * 1e6:.1f} | {100 * ideal / of[bound]:.0f} % | {bound} |")
    return text
