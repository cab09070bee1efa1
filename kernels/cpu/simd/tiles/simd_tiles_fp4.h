// Int8Task by matrix tiles: e2m1 weights as a checkpoint has them against many rows of x
// in 8 bits. Comes after simd_tiles.h, whose products and turns it takes.
//
// Int8Rows has groups in the lanes, a processor's tiles have weight rows there. So two
// tiles of weights are unpacked into scratch as right sides, and the words of each group
// of 12 rows of x brought together, once for each pair of tiles (simd_fp4_sides.h).
//
// Of an output 16 lanes are summed apart. One lane after the other is summed over its
// groups, so that its sums stay in registers; lanes come in the order of the tree that
// adds them up, of which four partial sums wait at most.
//
// Cycles for a group of two tiles and 12 rows, as in simd_tiles.h: vectors 48, 12 for
// words of x, with 48 rows 10 for unpacking, and 96 / blocks to begin a lane and add it
// up: 94 at 2,048 inputs (131 products a cycle), 77 at 7,168 (160). Vectors alone reach
// some 90.
#ifndef TESSERA_KERNELS_CPU_SIMD_TILES_SIMD_TILES_FP4_H_
#define TESSERA_KERNELS_CPU_SIMD_TILES_SIMD_TILES_FP4_H_

namespace tessera::kernels::cpu::TESSERA_SIMD_ISA {
namespace {

// The scratch of a task holds two tiles of so many blocks: of 7,168 inputs.
constexpr int64_t kFp4MostBlocks = 14;
constexpr int64_t kFp4GroupFloats = kRoundedGroupBytes / 4 + 16;
static_assert(2 * kFp4MostBlocks * 16 * kFp4GroupFloats <= kLinearScratchFloats);

// One lane of kX rows of x and kTiles tiles; groups are those of its blocks.
template <int kX, int kTiles>
struct Fp4Lane {
  const int8_t* x;      // the left side of block 0
  const float* scales;  // of row 0
  const int32_t* offsets;
  int64_t next_row;      // of scales and offsets
  const uint8_t* codes;  // the right side of block 0
  int64_t tile_codes;
  const float* steps;
  int64_t tile_steps;
};

template <int kTurn, int kX, int kTiles>
TESSERA_INLINE void MultiplyGroup(const Fp4Lane<kX, kTiles>& lane, int64_t b,
                                  int32_t* dots) {
  MultiplyTiles<kTurn, kTiles>(lane.x + b * kFp4XBytes, kFp4RowBytes,
                               lane.codes + b * 16 * kRoundedGroupBytes, lane.tile_codes,
                               dots);
}

template <int kX, int kTiles>
TESSERA_INLINE void AddDotsOfGroup(const Fp4Lane<kX, kTiles>& lane, int64_t b,
                                   const int32_t* dots, V16 (*sums)[kTiles]) {
  V16 steps[kTiles];
#pragma GCC unroll 2
  for (int t = 0; t < kTiles; ++t) {
    steps[t] = Load(lane.steps + t * lane.tile_steps + b * 256);
  }
#pragma GCC unroll 16
  for (int j = 0; j < kX; ++j) {
    const I16 offset = SetInts(lane.offsets[j * lane.next_row + b * 16]);
    const V16 scale = Set(lane.scales[j * lane.next_row + b * 16]);
#pragma GCC unroll 2
    for (int t = 0; t < kTiles; ++t) {
      const I16 dot = AddInts(LoadInts(dots + t * kTileSums + 16 * j), offset);
      sums[j][t] = Fma(IntsToFloats(dot), Mul(steps[t], scale), sums[j][t]);
    }
  }
}

// sums = before + sums.
template <int kX, int kTiles>
TESSERA_INLINE void AddBefore(const V16 (*before)[kTiles], V16 (*sums)[kTiles]) {
#pragma GCC unroll 16
  for (int j = 0; j < kX; ++j) {
#pragma GCC unroll 2
    for (int t = 0; t < kTiles; ++t) {
      sums[j][t] = Add(before[j][t], sums[j][t]);
    }
  }
}

// kX rows of x from row `item` on, gathered at `x`.
template <int kX, int kTiles>
TESSERA_APART void Fp4Items(const Int8Task& task, const Fp4Panel& panel, int64_t item,
                            const int8_t* x) {
  // Neighbours are what Reduce adds first.
  constexpr int kLanes[16] = {0, 8, 4, 12, 2, 10, 6, 14, 1, 9, 5, 13, 3, 11, 7, 15};
  V16 waiting[4][kX][kTiles];
  for (int n = 0; n < 16; ++n) {
    const int lane = kLanes[n];
    const int64_t at = item * panel.blocks * 16 + lane;
    const Fp4Lane<kX, kTiles> groups = {
        .x = x + Fp4LaneOffset(lane),
        .scales = task.x.scales + at,
        .offsets = task.x.offsets + at,
        .next_row = panel.blocks * 16,
        .codes = panel.codes + lane * kRoundedGroupBytes,
        .tile_codes = panel.blocks * 16 * kRoundedGroupBytes,
        .steps = panel.scales + lane * 16,
        .tile_steps = panel.blocks * 256};
    V16 sums[kX][kTiles];
#pragma GCC unroll 16
    for (int j = 0; j < kX; ++j) {
#pragma GCC unroll 2
      for (int t = 0; t < kTiles; ++t) {
        sums[j][t] = Zero();
      }
    }
    AddGroupsByTurns(groups, 0, panel.blocks, sums);
    int level = 0;
    for (; (n >> level & 1) != 0; ++level) {
      AddBefore<kX, kTiles>(waiting[level], sums);
    }
    V16(*to)[kTiles] = waiting[level < 4 ? level : 0];
#pragma GCC unroll 16
    for (int j = 0; j < kX; ++j) {
#pragma GCC unroll 2
      for (int t = 0; t < kTiles; ++t) {
        to[j][t] = sums[j][t];
      }
    }
  }
  for (int j = 0; j < kX; ++j) {
    float* out = task.out + (item + j) * task.out_stride + panel.row;
    for (int t = 0; t < kTiles; ++t) {
      const int64_t rest = panel.rows - 16 * t;
      StoreFirst(waiting[0][j][t], out + 16 * t, Smaller(rest, 16));
    }
  }
}

template <int kTiles>
void Fp4Rows(const Int8Task& task, const Fp4Panel& panel, int64_t count) {
  alignas(64) int8_t x[kFp4MostBlocks * kFp4XBytes];  // 84 KiB
  UnpackFp4(task, panel, kTiles);
  for (int64_t item = 0; item < count; item += kRoundedBlockRows) {
    const int64_t rows = Smaller(kRoundedBlockRows, count - item);
    GatherFp4Inputs(task.x, item, rows, x);
    if (rows == kRoundedBlockRows) {
      Fp4Items<kRoundedBlockRows, kTiles>(task, panel, item, x);
    } else {
      Fp4Items<kHalfBlock, kTiles>(task, panel, item, x);
    }
  }
}

int64_t TileInt8Linear(const Int8Task& task) {
  const int64_t halves = task.count / kHalfBlock;
  if (halves == 0 || task.x.blocks > kFp4MostBlocks) {
    return 0;
  }
  TileConfigure(kRoundedConfig);
  Fp4Panel panel = {};
  panel.blocks = task.x.blocks;
  panel.codes = reinterpret_cast<uint8_t*>(task.scratch);
  panel.scales = task.scratch + 2 * panel.blocks * 16 * kRoundedGroupBytes / 4;
  for (panel.row = task.row_begin; panel.row < task.row_end; panel.row += 32) {
    panel.rows = Smaller(32, task.row_end - panel.row);
    if (panel.rows > 16) {
      Fp4Rows<2>(task, panel, halves * kHalfBlock);
    } else {
      Fp4Rows<1>(task, panel, halves * kHalfBlock);
    }
  }
  TileRelease();
  return halves * kHalfBlock;
}

}  // namespace
}  // namespace tessera::kernels::cpu::TESSERA_SIMD_ISA

#endif  // TESSERA_KERNELS_CPU_SIMD_TILES_SIMD_TILES_FP4_H_
