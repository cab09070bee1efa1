// Weights in their stored format against rows of x, written once for all instruction
// sets: from memory through registers into the sums, without a panel of decoded weights
// in between. Included through simd_table.h only.
//
// Per 16 weights: a load, 3 or 4 instructions of decoding, a product with the scale, and
// a fused multiply-add per row of x. The bits are those of the panel: each product of a
// code and its scale is rounded once, each sum is the same chain.
#ifndef TESSERA_KERNELS_CPU_SIMD_SIMD_STORED_DOT_H_
#define TESSERA_KERNELS_CPU_SIMD_SIMD_STORED_DOT_H_

namespace tessera::kernels::cpu::TESSERA_SIMD_ISA {
namespace {

// Four weight rows in their stored format.
struct StoredRows {
  const uint8_t* codes[kWRows];
  const float* scales[kWRows];  // of the blocks from the one of column 0 on
  int64_t row_bytes;
  int64_t block_cols;
  int64_t col_offset;
};

constexpr bool IsScaled(WeightFormat format) {
  return format == WeightFormat::kF8E4M3 || format == WeightFormat::kFp4;
}

// The stored scale of an e4m3 block is multiplied by this beforehand, because
// DecodeFiniteF8 gives that part of a value.
constexpr float ScaleFactor(WeightFormat format) {
  return format == WeightFormat::kF8E4M3 ? 256.0F : 1.0F;
}

// Sixteen values times their scale. `kFinite`: none is NaN.
template <WeightFormat kFormat, bool kFinite>
TESSERA_INLINE V16 ScaledVector(const uint8_t* at, V16 factor) {
  if constexpr (!IsScaled(kFormat)) {
    return DecodeVector<kFormat>(at);
  } else if constexpr (kFormat == WeightFormat::kF8E4M3 && kFinite) {
    return Mul(DecodeFiniteF8(at), factor);
  } else {
    return Mul(DecodeVector<kFormat>(at), Mul(factor, Set(1.0F / ScaleFactor(kFormat))));
  }
}

struct Columns {
  int64_t begin;
  int64_t end;
};

// Adds `columns`, which share their scales, to the sums of kX rows of x.
template <WeightFormat kFormat, bool kFinite, int kX>
TESSERA_INLINE void AddVectors(const uint8_t* const* codes, const V16* factors,
                               const float* const* x, Columns columns,
                               V16 (*sums)[kWRows]) {
  for (int64_t i = columns.begin; i < columns.end; i += 16) {
    V16 weights[kWRows];
#pragma GCC unroll 4
    for (int o = 0; o < kWRows; ++o) {
      weights[o] =
          ScaledVector<kFormat, kFinite>(codes[o] + CodeBytes(kFormat, i), factors[o]);
    }
#pragma GCC unroll 4
    for (int j = 0; j < kX; ++j) {
      const V16 values = Load(x[j] + i);
#pragma GCC unroll 4
      for (int o = 0; o < kWRows; ++o) {
        sums[j][o] = Fma(values, weights[o], sums[j][o]);
      }
    }
  }
}

// The same for fewer than 16 columns from `begin` on, without reading past a row.
template <WeightFormat kFormat, int kX>
TESSERA_INLINE void AddRest(const uint8_t* const* codes, const V16* factors,
                            const float* const* x, Columns columns, V16 (*sums)[kWRows]) {
  const int64_t count = columns.end - columns.begin;
  V16 weights[kWRows];
  for (int o = 0; o < kWRows; ++o) {
    uint8_t last[64] = {};
    __builtin_memcpy(last, codes[o] + CodeBytes(kFormat, columns.begin),
                     static_cast<uint64_t>(CodeBytes(kFormat, count)));
    weights[o] = ScaledVector<kFormat, false>(last, factors[o]);
  }
  for (int j = 0; j < kX; ++j) {
    const V16 values = LoadFirst(x[j] + columns.begin, count);
    for (int o = 0; o < kWRows; ++o) {
      sums[j][o] = Fma(values, weights[o], sums[j][o]);
    }
  }
}

// Asks for the same columns of the next four rows. The processor's own prefetching stops
// at the end of a page, and a row is often just that.
template <WeightFormat kFormat>
TESSERA_INLINE void PrefetchNext(const StoredRows& w, Columns columns) {
  constexpr int64_t kLine = 64;
  const int64_t end = CodeBytes(kFormat, columns.end);
  for (int64_t at = CodeBytes(kFormat, columns.begin); at < end; at += kLine) {
#pragma GCC unroll 4
    for (int o = 0; o < kWRows; ++o) {
      __builtin_prefetch(w.codes[o] + at + kWRows * w.row_bytes, 0, 2);
    }
  }
}

template <WeightFormat kFormat>
TESSERA_INLINE bool AllFinite(const uint8_t* const* codes, Columns columns) {
  if constexpr (kFormat != WeightFormat::kF8E4M3) {
    return true;
  }
  bool damaged = false;
  for (int o = 0; o < kWRows; ++o) {
    damaged |= HasNanF8(codes[o] + columns.begin, columns.end - columns.begin);
  }
  return !damaged;
}

// Columns that are looked at together: a cache line at least in every format. Twice as
// many were a third slower on rows of one page each.
constexpr int64_t kLookahead = 128;

// out[x row][weight row] over the columns of a leaf.
template <WeightFormat kFormat, int kX>
void StoredDot(const StoredRows& w, const float* const* x, Columns leaf,
               float (*out)[kWRows]) {
  V16 sums[kX][kWRows];
#pragma GCC unroll 4
  for (int j = 0; j < kX; ++j) {
#pragma GCC unroll 4
    for (int o = 0; o < kWRows; ++o) {
      sums[j][o] = Zero();
    }
  }
  int64_t block = 0;  // of column `begin`, from the block of column 0 on
  int64_t block_end = leaf.begin + kLookahead;
  if constexpr (IsScaled(kFormat)) {
    const int64_t first_block = w.col_offset / w.block_cols;
    block = (w.col_offset + leaf.begin) / w.block_cols - first_block;
    block_end = (first_block + block + 1) * w.block_cols - w.col_offset;
  }
  int64_t looked_at = leaf.begin;  // columns below are on their way, and known to be
  bool finite = true;              // finite or not
  for (int64_t begin = leaf.begin; begin < leaf.end;) {
    const int64_t end = Smaller(leaf.end, block_end);
    V16 factors[kWRows] = {Zero(), Zero(), Zero(), Zero()};
    if constexpr (IsScaled(kFormat)) {
#pragma GCC unroll 4
      for (int o = 0; o < kWRows; ++o) {
        factors[o] = Set(w.scales[o][block]);
      }
      ++block;
    }
    block_end += IsScaled(kFormat) ? w.block_cols : kLookahead;
    const Columns whole = {begin, begin + (end - begin) / 16 * 16};
    if (whole.end > looked_at) {
      const int64_t span = end - begin > kLookahead ? end - begin : kLookahead;
      looked_at = begin + Smaller(span, leaf.end - begin) / 16 * 16;
      PrefetchNext<kFormat>(w, {begin, looked_at});
      finite = AllFinite<kFormat>(w.codes, {begin, looked_at});
    }
    if (finite) {
      AddVectors<kFormat, true, kX>(w.codes, factors, x, whole, sums);
    } else {
      AddVectors<kFormat, false, kX>(w.codes, factors, x, whole, sums);
    }
    if (whole.end < end) {
      AddRest<kFormat, kX>(w.codes, factors, x, {whole.end, end}, sums);
    }
    begin = end;
  }
  ReduceBlock<kX>(sums, out);
}

}  // namespace
}  // namespace tessera::kernels::cpu::TESSERA_SIMD_ISA

#endif  // TESSERA_KERNELS_CPU_SIMD_SIMD_STORED_DOT_H_
