// Dot products of stored weight rows (simd_stored_rows.h) with rows of x, written once
// for all instruction sets. simd_stored_groups.h has the short ways for most columns of
// scaled formats; here are all other columns, and the choice. Included through
// simd_table.h only.
#ifndef TESSERA_KERNELS_CPU_SIMD_SIMD_STORED_DOT_H_
#define TESSERA_KERNELS_CPU_SIMD_SIMD_STORED_DOT_H_

namespace tessera::kernels::cpu::TESSERA_SIMD_ISA {
namespace {

// Sixteen values times their scale, whatever they are.
template <WeightFormat kFormat>
TESSERA_INLINE V16 ScaledVector(const uint8_t* at, V16 factor) {
  if constexpr (!IsScaled(kFormat)) {
    return DecodeVector<kFormat>(at);
  } else {
    return Mul(DecodeVector<kFormat>(at), Mul(factor, Set(1.0F / ScaleFactor(kFormat))));
  }
}

// Adds `columns`, which share their scales, to the sums of kX rows of x.
template <WeightFormat kFormat, int kX>
TESSERA_INLINE void AddVectors(const StoredRows& w, const V16* factors,
                               const float* const* x, Columns columns,
                               V16 (*sums)[kWRows]) {
  for (int64_t i = columns.begin; i < columns.end; i += 16) {
    V16 weights[kWRows];
#pragma GCC unroll 4
    for (int o = 0; o < kWRows; ++o) {
      weights[o] = ScaledVector<kFormat>(w.row(o) + CodeBytes(kFormat, i), factors[o]);
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
TESSERA_INLINE void AddRest(const StoredRows& w, const V16* factors,
                            const float* const* x, Columns columns, V16 (*sums)[kWRows]) {
  const int64_t count = columns.end - columns.begin;
  V16 weights[kWRows];
  for (int o = 0; o < kWRows; ++o) {
    uint8_t last[64] = {};
    __builtin_memcpy(last, w.row(o) + CodeBytes(kFormat, columns.begin),
                     static_cast<uint64_t>(CodeBytes(kFormat, count)));
    weights[o] = ScaledVector<kFormat>(last, factors[o]);
  }
  for (int j = 0; j < kX; ++j) {
    const V16 values = LoadFirst(x[j] + columns.begin, count);
    for (int o = 0; o < kWRows; ++o) {
      sums[j][o] = Fma(values, weights[o], sums[j][o]);
    }
  }
}

// Every column, in any format and with any scales.
template <WeightFormat kFormat, int kX>
TESSERA_INLINE void AddColumns(const StoredRows& w, const float* const* x, Columns leaf,
                               V16 (*sums)[kWRows]) {
  int64_t block = 0;  // of column `begin`, from the block of column 0 on
  int64_t block_end = leaf.begin + kLookahead<kFormat>;
  if constexpr (IsScaled(kFormat)) {
    const int64_t first_block = w.col_offset / w.block_cols;
    block = (w.col_offset + leaf.begin) / w.block_cols - first_block;
    block_end = (first_block + block + 1) * w.block_cols - w.col_offset;
  }
  for (int64_t begin = leaf.begin; begin < leaf.end; ++block) {
    const int64_t end = Smaller(leaf.end, block_end);
    V16 factors[kWRows] = {Zero(), Zero(), Zero(), Zero()};
    if constexpr (IsScaled(kFormat)) {
#pragma GCC unroll 4
      for (int o = 0; o < kWRows; ++o) {
        factors[o] = Set(w.scales[o][block]);
      }
    }
    block_end += IsScaled(kFormat) ? w.block_cols : kLookahead<kFormat>;
    const Columns whole = {begin, begin + (end - begin) / 16 * 16};
    PrefetchNext<kFormat>(w, whole);
    AddVectors<kFormat, kX>(w, factors, x, whole, sums);
    if (whole.end < end) {
      AddRest<kFormat, kX>(w, factors, x, {whole.end, end}, sums);
    }
    begin = end;
  }
}

// ---- all columns of a leaf ----

template <int kX>
TESSERA_INLINE void SetZero(V16 (*sums)[kWRows]) {
#pragma GCC unroll 4
  for (int j = 0; j < kX; ++j) {
#pragma GCC unroll 4
    for (int o = 0; o < kWRows; ++o) {
      sums[j][o] = Zero();
    }
  }
}

// The columns that AddBlocks does not take, after `sums`. Apart, so that the registers of
// the usual way are not shared with it.
template <WeightFormat kFormat, int kX>
TESSERA_APART void AddOddColumns(const StoredRows& w, const float* const* x, Columns rest,
                                 V16 (*sums)[kWRows], float (*out)[kWRows]) {
  AddColumns<kFormat, kX>(w, x, rest, sums);
  ReduceBlock<kX>(sums, out);
}

// out[x row][weight row] over the columns of a leaf.
template <WeightFormat kFormat, int kX>
TESSERA_APART void StoredDot(const StoredRows& w, const float* const* x, Columns leaf,
                             float (*out)[kWRows]) {
  V16 sums[kX][kWRows];
  SetZero<kX>(sums);
  if constexpr (!IsScaled(kFormat)) {
    AddColumns<kFormat, kX>(w, x, leaf, sums);
    ReduceBlock<kX>(sums, out);
    return;
  }
  const bool in_groups =
      w.block_cols % kGroup == 0 && (w.col_offset + leaf.begin) % kGroup == 0;
  int64_t end = leaf.begin;
  if (in_groups) {
    end = leaf.end - (leaf.end - leaf.begin) % kGroup;
    if (!AddBlocks<kFormat, kX>(w, x, {leaf.begin, end}, sums)) {
      end = leaf.begin;
      SetZero<kX>(sums);
    }
  }
  V16 ordered[kX][kWRows];
#pragma GCC unroll 4
  for (int j = 0; j < kX; ++j) {
#pragma GCC unroll 4
    for (int o = 0; o < kWRows; ++o) {
      ordered[j][o] =
          kFormat == WeightFormat::kFp4 ? FromFp4Order(sums[j][o]) : sums[j][o];
    }
  }
  if (end < leaf.end) {
    AddOddColumns<kFormat, kX>(w, x, {end, leaf.end}, ordered, out);
  } else {
    ReduceBlock<kX>(ordered, out);
  }
}

}  // namespace
}  // namespace tessera::kernels::cpu::TESSERA_SIMD_ISA

#endif  // TESSERA_KERNELS_CPU_SIMD_SIMD_STORED_DOT_H_
