// Products of weights and activations in 8 bits, written once for all instruction sets:
// RoundedTask and RoundedRows of simd_ops.h have layout and sums. Included through
// simd_table.h only.
//
// A vector of weights holds four inputs of 16 rows, so that a lane is an output: nothing
// is added across lanes, and a word of x goes to all of them.
//
// Per group of 32 inputs of two tiles and six rows of x on AVX-512 with VNNI: 96 dot
// products, 12 products of scales and 12 multiply-adds (two a cycle on the same ports),
// 12 conversions on others: 60 cycles for 6144 products, 102 a cycle of 128. 16 loads of
// weights (from L2, which a panel of 16 inputs * rows fits) and 48 words of x, of two
// loads a cycle. With one row of x the same loads are 64 bytes of weights a cycle,
// several times what memory gives.
#ifndef TESSERA_KERNELS_CPU_SIMD_ROUNDED_SIMD_ROUNDED_H_
#define TESSERA_KERNELS_CPU_SIMD_ROUNDED_SIMD_ROUNDED_H_

namespace tessera::kernels::cpu::TESSERA_SIMD_ISA {
namespace {

static_assert(kRoundedBlockRows % kRoundedXRows == 0);

// kX rows of x of one block, which has kRows, and kTiles tiles that follow each other.
template <int kX, int kTiles, int kRows = kRoundedBlockRows>
struct RoundedBlock {
  const int8_t* x;
  const float* scales;
  const int32_t* offsets;
  const uint8_t* codes;
  int64_t tile_codes;  // from one tile to the next
  const uint8_t* steps;
  int64_t tile_steps;
};

// Groups [begin, end).
template <int kX, int kTiles, int kRows>
TESSERA_INLINE void AddGroups(const RoundedBlock<kX, kTiles, kRows>& b, int64_t begin,
                              int64_t end, V16 (*sums)[kTiles]) {
  for (int64_t g = begin; g < end; ++g) {
    I16 dots[kX][kTiles];
#pragma GCC unroll 8
    for (int j = 0; j < kX; ++j) {
#pragma GCC unroll 2
      for (int t = 0; t < kTiles; ++t) {
        dots[j][t] = StartDots(b.offsets[g * kRows + j]);
      }
    }
    const uint8_t* w = b.codes + g * kRoundedGroupBytes;
    const int8_t* values = b.x + g * kRows * kRoundedGroup * kRoundedValueBytes;
#pragma GCC unroll 8
    for (int run = 0; run < kRoundedRuns; ++run) {
      RoundedWeights weights[kTiles];
#pragma GCC unroll 2
      for (int t = 0; t < kTiles; ++t) {
        weights[t] = LoadWeights(w + t * b.tile_codes + 64 * run);
      }
#pragma GCC unroll 8
      for (int j = 0; j < kX; ++j) {
        const RoundedInput word =
            LoadInput(values + (j * kRoundedGroup + 4 * run) * kRoundedValueBytes);
#pragma GCC unroll 2
        for (int t = 0; t < kTiles; ++t) {
          dots[j][t] = AddBiasedDots(dots[j][t], weights[t], word);
        }
      }
    }
#pragma GCC unroll 2
    for (int t = 0; t < kTiles; ++t) {
      const V16 step = DecodeSteps(b.steps + t * b.tile_steps + g * 16);
#pragma GCC unroll 8
      for (int j = 0; j < kX; ++j) {
        const V16 factor = Mul(step, Set(b.scales[g * kRows + j]));
        sums[j][t] = Fma(IntsToFloats(dots[j][t]), factor, sums[j][t]);
      }
    }
  }
}

// Lanes of a tile that begins at weight row `tile_row` to the outputs of a row of x.
TESSERA_INLINE void StoreTile(const RoundedTask& task, V16 sums, int64_t tile_row,
                              float* out) {
  float* to = out + (tile_row - task.row_begin);
  if (tile_row >= task.row_begin && tile_row + 16 <= task.row_end) {
    return Store(sums, to);
  }
  float lanes[16];
  Store(sums, lanes);
  for (int64_t i = 0; i < 16; ++i) {
    if (tile_row + i >= task.row_begin && tile_row + i < task.row_end) {
      to[i] = lanes[i];
    }
  }
}

// How the groups of a block are added up: by vectors alone.
struct VectorGroups {
  template <int kX, int kTiles, int kRows>
  TESSERA_INLINE void Add(const RoundedBlock<kX, kTiles, kRows>& block, int64_t begin,
                          int64_t end, V16 (*sums)[kTiles]) {
    AddGroups(block, begin, end, sums);
  }
};

// kX rows of x, in blocks of kRows, from `item` on against kTiles tiles from `tile` on.
template <int kX, int kTiles, typename Groups = VectorGroups,
          int kRows = kRoundedBlockRows>
TESSERA_APART void RoundedItems(const RoundedTask& task, int64_t item, int64_t tile) {
  const int64_t groups = task.leaves.begin[task.leaves.count];
  const int64_t at =
      (task.x_row + item) / kRows * groups * kRows + (task.x_row + item) % kRows;
  const RoundedBlock<kX, kTiles, kRows> block = {
      .x = task.x.codes + at * kRoundedGroup * kRoundedValueBytes,
      .scales = task.x.scales + at,
      .offsets = task.x.offsets + at,
      .codes = task.codes + tile * groups * kRoundedGroupBytes,
      .tile_codes = groups * kRoundedGroupBytes,
      .steps = task.steps + tile * groups * 16,
      .tile_steps = groups * 16};
  V16 sums[kMaxLeaves][kX][kTiles];
  for (int32_t leaf = 0; leaf < task.leaves.count; ++leaf) {
    V16 part[kX][kTiles];
#pragma GCC unroll 16
    for (int j = 0; j < kX; ++j) {
#pragma GCC unroll 2
      for (int t = 0; t < kTiles; ++t) {
        part[j][t] = Zero();
      }
    }
    Groups::Add(block, task.leaves.begin[leaf], task.leaves.begin[leaf + 1], part);
#pragma GCC unroll 16
    for (int j = 0; j < kX; ++j) {
#pragma GCC unroll 2
      for (int t = 0; t < kTiles; ++t) {
        sums[leaf][j][t] = part[j][t];
      }
    }
  }
  for (int32_t distance = 1; distance < task.leaves.count; distance *= 2) {
    for (int32_t leaf = 0; leaf < task.leaves.count; leaf += 2 * distance) {
      for (int j = 0; j < kX; ++j) {
        for (int t = 0; t < kTiles; ++t) {
          sums[leaf][j][t] = Add(sums[leaf][j][t], sums[leaf + distance][j][t]);
        }
      }
    }
  }
  for (int j = 0; j < kX; ++j) {
    for (int t = 0; t < kTiles; ++t) {
      StoreTile(task, sums[0][j][t], (tile + t) * 16,
                task.out + (item + j) * task.out_stride);
    }
  }
}

// The rows of x from `item` on, which begins kRoundedXRows.
template <int kTiles>
void RoundedTiles(const RoundedTask& task, int64_t tile, int64_t item = 0) {
  for (; item + kRoundedXRows <= task.count; item += kRoundedXRows) {
    RoundedItems<kRoundedXRows, kTiles>(task, item, tile);
  }
  if constexpr (kRoundedXRows > 4) {
    if (item + 4 <= task.count) {
      RoundedItems<4, kTiles>(task, item, tile);
      item += 4;
    }
  }
  if constexpr (kRoundedXRows > 2) {
    if (item + 2 <= task.count) {
      RoundedItems<2, kTiles>(task, item, tile);
      item += 2;
    }
  }
  for (; item < task.count; ++item) {
    RoundedItems<1, kTiles>(task, item, tile);
  }
}

// Rows of x that meet all weights of a task before the next ones: 192 KiB, for L2.
constexpr int64_t kRoundedPassBytes = 192 << 10;
TESSERA_INLINE int64_t RoundedPassRows(const LeafGroups& leaves, int64_t pass_bytes) {
  constexpr int64_t kBytes = kRoundedBlockRows * kRoundedGroup * kRoundedValueBytes;
  const int64_t blocks = pass_bytes / (leaves.begin[leaves.count] * kBytes + 1);
  return (blocks > 1 ? blocks : 1) * kRoundedBlockRows;
}

// One row of x, taken out of its block: there each group of it has lines of L1 of its
// own, with those of rows that are not asked for, which the weights that pass push out
// again.
TESSERA_APART bool RoundedLinearOfOne(const RoundedTask& task) {
  constexpr int64_t kMostGroups = 512;
  constexpr int64_t kBytes = kRoundedGroup * kRoundedValueBytes;
  const int64_t groups = task.leaves.begin[task.leaves.count];
  if (task.count != 1 || groups > kMostGroups) {
    return false;
  }
  alignas(64) int8_t codes[kMostGroups * kBytes];
  float scales[kMostGroups];
  int32_t offsets[kMostGroups];
  const int64_t at = task.x_row / kRoundedBlockRows * groups * kRoundedBlockRows +
                     task.x_row % kRoundedBlockRows;
  for (int64_t g = 0; g < groups; ++g) {
    const int64_t from = at + g * kRoundedBlockRows;
    __builtin_memcpy(codes + g * kBytes, task.x.codes + from * kBytes, kBytes);
    scales[g] = task.x.scales[from];
    offsets[g] = task.x.offsets[from];
  }
  RoundedTask alone = task;
  alone.x = {codes, scales, offsets};
  alone.x_row = 0;
  for (int64_t tile = task.row_begin / 16; tile < (task.row_end + 15) / 16; ++tile) {
    RoundedItems<1, 1, VectorGroups, 1>(alone, 0, tile);
  }
  return true;
}

void RoundedLinear(const RoundedTask& task) {
  if (RoundedLinearOfOne(task)) {
    return;
  }
  const int64_t end = (task.row_end + 15) / 16;
  const int64_t rows = RoundedPassRows(task.leaves, kRoundedPassBytes);
  // Few rows of x wait for memory. One tile behind the other is one run of addresses, of
  // which a processor fetches ahead more than prefetch instructions do.
  constexpr int64_t kStreamedRows = 4;
  const bool streams = task.count <= kStreamedRows;
  for (int64_t first = 0; first < task.count; first += rows) {
    RoundedTask pass = task;
    pass.x_row = task.x_row + first;
    pass.count = Smaller(rows, task.count - first);
    pass.out = task.out + first * task.out_stride;
    int64_t tile = task.row_begin / 16;
    for (; !streams && tile + kRoundedTiles <= end; tile += kRoundedTiles) {
      RoundedTiles<kRoundedTiles>(pass, tile);
    }
    for (; tile < end; ++tile) {
      RoundedTiles<1>(pass, tile);
    }
  }
}

}  // namespace
}  // namespace tessera::kernels::cpu::TESSERA_SIMD_ISA

#endif  // TESSERA_KERNELS_CPU_SIMD_ROUNDED_SIMD_ROUNDED_H_
