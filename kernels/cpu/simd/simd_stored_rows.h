// Weight rows in their stored format, as the kernels for few rows of x see them: four at
// a time, from memory through registers into the sums, without a panel of decoded weights
// in between. Included through simd_table.h only.
//
// The bits are those of the panel: each product of a code and its scale is rounded once,
// each sum is the same chain. Instructions for 32 columns of four rows and one row of x,
// AVX-512, and what a Zen 5 core does at most of them in a cycle:
//
//   FP8, 128 bytes: 4 loads that widen, 4 shifts, 4 masks, 4 halvings, 8 conversions (1.3
//     a cycle), 8 products, 8 multiply-adds (2 a cycle): 40, of which the 16 on the
//     multipliers take 8 cycles; with the loop 12 cycles, 10 bytes a cycle.
//   FP4, 64 bytes: 8 shifts, 8 look-ups and 2 permutations of x (2 a cycle, on the same
//     ports): 9 cycles; 4 tables and 8 multiply-adds besides: 7 bytes a cycle.
//   BF16, 256 bytes: 8 loads that widen, 8 shifts, 8 multiply-adds: 16 bytes a cycle.
//
// A core reads 6 bytes a cycle from memory, so that one row of x is bound by that in each
// format; from about four rows on, multiply-adds are the bound: 32 a cycle.
#ifndef TESSERA_KERNELS_CPU_SIMD_SIMD_STORED_ROWS_H_
#define TESSERA_KERNELS_CPU_SIMD_SIMD_STORED_ROWS_H_

namespace tessera::kernels::cpu::TESSERA_SIMD_ISA {
namespace {

// Four weight rows in their stored format.
struct StoredRows {
  const uint8_t* codes;         // of the first row
  int64_t row_bytes;            // zero: one row, four times
  const float* scales[kWRows];  // of the blocks from the one of column 0 on
  int64_t block_cols;
  int64_t col_offset;
  int64_t bytes_ahead;  // to the rows that are asked for while these are read
  const uint8_t* row(int64_t o) const { return codes + o * row_bytes; }
};

// Whole blocks of four rows, kBytesAhead or a little more.
TESSERA_INLINE int64_t BytesAhead(int64_t row_bytes) {
  const int64_t block = kWRows * row_bytes;
  return block == 0 ? 0 : (kBytesAhead + block - 1) / block * block;
}

constexpr bool IsScaled(WeightFormat format) {
  return format == WeightFormat::kF8E4M3 || format == WeightFormat::kFp4;
}

// The stored scale of an e4m3 block is multiplied by this beforehand, because
// DecodeFiniteF8 gives that part of a value.
constexpr float ScaleFactor(WeightFormat format) {
  return format == WeightFormat::kF8E4M3 ? 256.0F : 1.0F;
}

struct Columns {
  int64_t begin;
  int64_t end;
};

// Asks for the same columns of four rows ahead. The processor's own prefetching stops at
// the end of a page, and a row is often just that.
template <WeightFormat kFormat>
TESSERA_INLINE void PrefetchNext(const StoredRows& w, Columns columns) {
  constexpr int64_t kLine = 64;
  const uint8_t* next = w.codes + w.bytes_ahead;
  const int64_t end = CodeBytes(kFormat, columns.end);
  for (int64_t at = CodeBytes(kFormat, columns.begin); at < end; at += kLine) {
#pragma GCC unroll 4
    for (int o = 0; o < kWRows; ++o) {
      __builtin_prefetch(next + o * w.row_bytes + at, 0, 2);
    }
  }
}

// Columns that are looked at together: whole cache lines in every format, few enough that
// what is asked for arrives in order (256 of FP8 were a third slower on rows of a page).
template <WeightFormat kFormat>
constexpr int64_t kLookahead = kFormat == WeightFormat::kFp4 ? 256 : 128;

}  // namespace
}  // namespace tessera::kernels::cpu::TESSERA_SIMD_ISA

#endif  // TESSERA_KERNELS_CPU_SIMD_SIMD_STORED_ROWS_H_
