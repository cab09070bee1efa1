// RoundedTask by matrix tiles, written once over registers (tiles_amx.h) and over a
// software twin of them (tiles_twin.h). Comes after simd_rounded.h.
//
// Weights are read as they lie: a group of 32 inputs of 16 weight rows is eight rows of
// 64 bytes, which is the right side of a product, bytes without sign. The left side are
// the kRoundedBlockRows rows of x of that group, one behind the other.
//
// A group has a scale of its own, so that its sums must leave the tile before the next
// one's are added: a product is 32 deep where the unit has 64. Cycles for a group of two
// tiles of weights and 12 rows of x, 12,288 products of bytes, on a core with one product
// of tiles in 16 cycles and two vectors a cycle:
//
//   products    2 x 16                                                        32
//   vectors     (24 x (less 128 times x, to floats, scale, multiply-add)
//                + 4 to decode steps) / 2                                     50
//   loads       (12 of x + 16 of weights + 24 sums + 12 + 12 + 2) / 2         39
//   stores      24 sums                                                       24
//
// 50 cycles, 246 products a cycle: a quarter of the 1,024 that whole tiles reach, 2.7
// times the 90 of vectors alone on such a core. Vectors bind, so that neither deeper
// products nor more than 12 rows of the 16 would help. Two groups side by side in one
// product, with zeros where they do not meet, keep the same vectors and double the
// products. Weights with sign, a copy in L1 for several blocks of rows, would save a
// vector of four: 38 cycles. Fewer scales would be another numerics.
//
// While the unit multiplies group g + 1 into other registers, vectors take group g from
// L1: a sum reaches memory 50 cycles and more after its product began.
#ifndef TESSERA_KERNELS_CPU_SIMD_TILES_SIMD_TILES_H_
#define TESSERA_KERNELS_CPU_SIMD_TILES_SIMD_TILES_H_

namespace tessera::kernels::cpu::TESSERA_SIMD_ISA {
namespace {

static_assert(kRoundedValueBytes == 1 && kRoundedBlockRows <= kMaxTileRows);

// Tile registers, of which groups take turns: sums of two tiles of weights, rows of x,
// weights.
constexpr int kSumTile = 0;
constexpr int kInputTile = 4;
constexpr int kWeightTile = 6;
constexpr uint8_t kInputRows = kRoundedBlockRows;
constexpr TileConfig kRoundedConfig = {
    .palette = 1,
    .start_row = 0,
    .reserved = {},
    .row_bytes = {64, 64, 64, 64, kRoundedGroup, kRoundedGroup, 64, 64},
    .rows = {kInputRows, kInputRows, kInputRows, kInputRows, kInputRows, kInputRows,
             kRoundedRuns, kRoundedRuns}};
constexpr int64_t kTileSums = kRoundedBlockRows * 16;

// Multiplies rows of x of a group, `stride` bytes apart, by the registers of turn kTurn
// with its weights at `w`, those of another tile `next` bytes on; sums go to `dots`.
template <int kTurn, int kTiles>
TESSERA_INLINE void MultiplyTiles(const int8_t* x, int64_t stride, const uint8_t* w,
                                  int64_t next, int32_t* dots) {
  constexpr int kSums = kSumTile + 2 * kTurn;
  constexpr int kInputs = kInputTile + kTurn;
  TileLoad<kInputs>(x, stride);
  TileLoad<kWeightTile>(w, 64);
  TileZero<kSums>();
  TileAddProducts<kSums, kInputs, kWeightTile>();
  if constexpr (kTiles > 1) {
    TileLoad<kWeightTile + 1>(w + next, 64);
    TileZero<kSums + 1>();
    TileAddProducts<kSums + 1, kInputs, kWeightTile + 1>();
  }
  TileStore<kSums>(dots, 64);
  if constexpr (kTiles > 1) {
    TileStore<kSums + 1>(dots + kTileSums, 64);
  }
}

template <int kTurn, int kX, int kTiles>
TESSERA_INLINE void MultiplyGroup(const RoundedBlock<kX, kTiles>& b, int64_t g,
                                  int32_t* dots) {
  MultiplyTiles<kTurn, kTiles>(b.x + g * kRoundedBlockRows * kRoundedGroup, kRoundedGroup,
                               b.codes + g * kRoundedGroupBytes, b.tile_codes, dots);
}

// The sums of group g, without what the 128 of the weights added, times their scales.
template <int kX, int kTiles>
TESSERA_INLINE void AddDotsOfGroup(const RoundedBlock<kX, kTiles>& b, int64_t g,
                                   const int32_t* dots, V16 (*sums)[kTiles]) {
  V16 steps[kTiles];
#pragma GCC unroll 2
  for (int t = 0; t < kTiles; ++t) {
    steps[t] = DecodeSteps(b.steps + t * b.tile_steps + g * 16);
  }
#pragma GCC unroll 16
  for (int j = 0; j < kX; ++j) {
    const int64_t at = g * kRoundedBlockRows + j;
    const I16 offset = SetInts(b.offsets[at]);
    const V16 scale = Set(b.scales[at]);
#pragma GCC unroll 2
    for (int t = 0; t < kTiles; ++t) {
      const I16 dot = AddInts(LoadInts(dots + t * kTileSums + 16 * j), offset);
      sums[j][t] = Fma(IntsToFloats(dot), Mul(steps[t], scale), sums[j][t]);
    }
  }
}

// Groups [begin, end) of a block by turns.
template <typename Block, int kTiles>
TESSERA_INLINE void AddGroupsByTurns(const Block& block, int64_t begin, int64_t end,
                                     V16 (*sums)[kTiles]) {
  alignas(64) int32_t dots[2][kTiles * kTileSums];
  if (begin == end) {
    return;  // a leaf without inputs
  }
  MultiplyGroup<0>(block, begin, dots[0]);
  int64_t g = begin;
  for (; g + 2 < end; g += 2) {
    MultiplyGroup<1>(block, g + 1, dots[1]);
    AddDotsOfGroup(block, g, dots[0], sums);
    MultiplyGroup<0>(block, g + 2, dots[0]);
    AddDotsOfGroup(block, g + 1, dots[1], sums);
  }
  if (g + 1 < end) {
    MultiplyGroup<1>(block, g + 1, dots[1]);
    AddDotsOfGroup(block, g, dots[0], sums);
    AddDotsOfGroup(block, g + 1, dots[1], sums);
  } else {
    AddDotsOfGroup(block, g, dots[0], sums);
  }
}

struct TileGroups {
  template <int kX, int kTiles>
  TESSERA_INLINE void Add(const RoundedBlock<kX, kTiles>& block, int64_t begin,
                          int64_t end, V16 (*sums)[kTiles]) {
    AddGroupsByTurns(block, begin, end, sums);
  }
};

// Half a block costs two thirds of a whole one; fewer rows are better off without tiles.
constexpr int kHalfBlock = kRoundedBlockRows / 2;

template <int kTiles>
void TileItems(const RoundedTask& task, int64_t tile) {
  int64_t item = 0;
  for (; item + kRoundedBlockRows <= task.count; item += kRoundedBlockRows) {
    RoundedItems<kRoundedBlockRows, kTiles, TileGroups>(task, item, tile);
  }
  if (item + kHalfBlock <= task.count) {
    RoundedItems<kHalfBlock, kTiles, TileGroups>(task, item, tile);
    item += kHalfBlock;
  }
  RoundedTiles<kTiles>(task, tile, item);
}

// Processors with tiles have 2 MiB of L2 and take weights faster.
constexpr int64_t kTilePassBytes = 768 << 10;

// Registers are shaped and given back in each call, which costs some 200 cycles: those of
// 50,000 products of bytes. A thread between calls has no tiles, so that the system saves
// none.
void TileRoundedLinear(const RoundedTask& task) {
  if (task.count < kHalfBlock) {
    return RoundedLinear(task);
  }
  TileConfigure(kRoundedConfig);
  const int64_t end = (task.row_end + 15) / 16;
  const int64_t rows = RoundedPassRows(task.leaves, kTilePassBytes);
  for (int64_t first = 0; first < task.count; first += rows) {
    RoundedTask pass = task;
    pass.x_row = task.x_row + first;
    pass.count = Smaller(rows, task.count - first);
    pass.out = task.out + first * task.out_stride;
    int64_t tile = task.row_begin / 16;
    for (; tile + 2 <= end; tile += 2) {
      TileItems<2>(pass, tile);
    }
    if (tile < end) {
      TileItems<1>(pass, tile);
    }
  }
  TileRelease();
}

// Four sums of 16 x 16, two left sides of 16 x 64 bytes, two right sides.
constexpr TileConfig kWholeConfig = {.palette = 1,
                                     .start_row = 0,
                                     .reserved = {},
                                     .row_bytes = {64, 64, 64, 64, 64, 64, 64, 64},
                                     .rows = {16, 16, 16, 16, 16, 16, 16, 16}};
constexpr int64_t kWholeProducts = int64_t{16} * 16 * 64;

int64_t TileMultiply(int64_t rounds) {
  TileConfigure(kWholeConfig);  // and all are zero
  for (int64_t i = 0; i < rounds; ++i) {
    TileAddProducts<0, 4, 6>();
    TileAddProducts<1, 4, 7>();
    TileAddProducts<2, 5, 6>();
    TileAddProducts<3, 5, 7>();
  }
  TileRelease();
  return rounds * 4 * kWholeProducts;
}

}  // namespace
}  // namespace tessera::kernels::cpu::TESSERA_SIMD_ISA

#endif  // TESSERA_KERNELS_CPU_SIMD_TILES_SIMD_TILES_H_
