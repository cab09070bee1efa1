// The usual columns of scaled weights in their stored format: groups of 32 that share
// their scales, e4m3 codes that are finite. What is neither is left to
// simd_stored_dot.h. Included through simd_table.h only.
#ifndef TESSERA_KERNELS_CPU_SIMD_SIMD_STORED_GROUPS_H_
#define TESSERA_KERNELS_CPU_SIMD_SIMD_STORED_GROUPS_H_

namespace tessera::kernels::cpu::TESSERA_SIMD_ISA {
namespace {

constexpr int64_t kGroup = 32;

// Adds `columns`, finite and with one scale for each weight row. FP4 sums are in the
// order of ToFp4Order.
template <WeightFormat kFormat, int kX>
TESSERA_INLINE void AddGroups(const StoredRows& w, const float* scales,
                              const float* const* x, Columns columns,
                              V16 (*sums)[kWRows]) {
  V16 factors[kWRows];
#pragma GCC unroll 4
  for (int o = 0; o < kWRows; ++o) {
    factors[o] = kFormat == WeightFormat::kFp4 ? Fp4Products(scales[o]) : Set(scales[o]);
  }
  constexpr int64_t kBytes = kFormat == WeightFormat::kFp4 ? kGroup / 2 : kGroup;
  const int64_t end = columns.end * kBytes / kGroup;
  for (int64_t at = columns.begin * kBytes / kGroup; at < end; at += kBytes) {
    V16 weights[kWRows][2];
#pragma GCC unroll 4
    for (int o = 0; o < kWRows; ++o) {
      if constexpr (kFormat == WeightFormat::kFp4) {
        LookUpFp4(w.row(o) + at, factors[o], weights[o]);
      } else {
        DecodeFiniteF8(w.row(o) + at, weights[o]);
        weights[o][0] = Mul(weights[o][0], factors[o]);
        weights[o][1] = Mul(weights[o][1], factors[o]);
      }
    }
#pragma GCC unroll 2
    for (int half = 0; half < 2; ++half) {
#pragma GCC unroll 4
      for (int j = 0; j < kX; ++j) {
        V16 values = Load(x[j] + at * (kGroup / kBytes) + 16 * half);
        if constexpr (kFormat == WeightFormat::kFp4) {
          values = ToFp4Order(values);
        }
#pragma GCC unroll 4
        for (int o = 0; o < kWRows; ++o) {
          sums[j][o] = Fma(values, weights[o][half], sums[j][o]);
        }
      }
    }
  }
}

// The largest magnitude of an e4m3 code of `columns`, by byte, and of those in `largest`.
TESSERA_INLINE I16 LargestCodes(const StoredRows& w, Columns columns, I16 largest) {
  if (columns.end - columns.begin == kLookahead<WeightFormat::kF8E4M3>) {
#pragma GCC unroll 4
    for (int o = 0; o < kWRows; ++o) {
      const uint8_t* at = w.row(o) + columns.begin;
      largest = LargerF8(LargerF8(largest, LoadBytes(at)), LoadBytes(at + 64));
    }
    return largest;
  }
  for (int o = 0; o < kWRows; ++o) {
    for (int64_t i = columns.begin; i < columns.end; i += kGroup) {
      largest = LargerF8(largest, LoadTwice(w.row(o) + i));
    }
  }
  return largest;
}

// Adds `columns`, a whole number of groups that begin where those of the scales do.
// False: there was a NaN, so that the sums are none.
template <WeightFormat kFormat, int kX>
TESSERA_INLINE bool AddBlocks(const StoredRows& w, const float* const* x, Columns columns,
                              V16 (*sums)[kWRows]) {
  constexpr bool kMayBeNan = kFormat == WeightFormat::kF8E4M3;
  const int64_t first_block = w.col_offset / w.block_cols;
  int64_t block = (w.col_offset + columns.begin) / w.block_cols - first_block;
  int64_t block_end = (first_block + block + 1) * w.block_cols - w.col_offset;
  I16 largest = ZeroInts();
  for (int64_t begin = columns.begin; begin < columns.end;) {
    const Columns ahead = {begin, Smaller(begin + kLookahead<kFormat>, columns.end)};
    PrefetchNext<kFormat>(w, ahead);
    if constexpr (kMayBeNan) {
      largest = LargestCodes(w, ahead, largest);
    }
    while (begin < ahead.end) {
      const Columns same = {begin, Smaller(block_end, ahead.end)};
      const float scales[kWRows] = {w.scales[0][block], w.scales[1][block],
                                    w.scales[2][block], w.scales[3][block]};
      AddGroups<kFormat, kX>(w, scales, x, same, sums);
      begin = same.end;
      if (begin == block_end) {
        ++block;
        block_end += w.block_cols;
      }
    }
  }
  return !kMayBeNan || !HoldsNanF8(largest);
}

}  // namespace
}  // namespace tessera::kernels::cpu::TESSERA_SIMD_ISA

#endif  // TESSERA_KERNELS_CPU_SIMD_SIMD_STORED_GROUPS_H_
