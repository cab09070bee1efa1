// How inputs in 8 bits lie in memory. Plain data, as in simd_ops.h.
#ifndef TESSERA_KERNELS_CPU_SIMD_ROUNDED_ROUNDED_ROWS_H_
#define TESSERA_KERNELS_CPU_SIMD_ROUNDED_ROUNDED_ROWS_H_

#include <cstdint>

namespace tessera::kernels::cpu {

constexpr int32_t kMaxLeaves = 8;

// Weights and activations in 8 bits (WeightView says to which values). Inputs fall
// into groups of kRoundedGroup, counted from the first input of each leaf on, so that the
// last one of a leaf may be shorter; what lacks is zero.
constexpr int64_t kRoundedGroup = 32;
constexpr int64_t kRoundedRuns = 8;          // of 64 bytes in a group of a tile
constexpr int64_t kRoundedGroupBytes = 512;  // of a tile of 16 weight rows
constexpr int64_t kRoundedBlockRows = 12;    // rows of x that lie together
struct LeafGroups {
  int32_t count;                  // leaves; 1 for a contraction that is not cut
  int64_t input[kMaxLeaves + 1];  // where they begin
  int64_t begin[kMaxLeaves + 1];  // in groups
};
// Rows of x. Blocks of kRoundedBlockRows rows; in them groups, then rows.
struct RoundedRows {
  int8_t* codes;     // [blocks, groups, kRoundedBlockRows, kRoundedGroup], in the form
                     // that the table multiplies: rounded_value_bytes each
  float* scales;     // [blocks, groups, kRoundedBlockRows]
  int32_t* offsets;  // likewise: -128 times the sum of a group's codes
};

}  // namespace tessera::kernels::cpu

#endif  // TESSERA_KERNELS_CPU_SIMD_ROUNDED_ROUNDED_ROWS_H_
