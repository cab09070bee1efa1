// Rounding of weights and activations to 8 bits, written once for all instruction sets:
// WeightView says to which values, RoundedTile and RoundedRows where they lie. Included
// through simd_table.h only.
#ifndef TESSERA_KERNELS_CPU_SIMD_ROUNDED_SIMD_ROUNDING_H_
#define TESSERA_KERNELS_CPU_SIMD_ROUNDED_SIMD_ROUNDING_H_

namespace tessera::kernels::cpu::TESSERA_SIMD_ISA {
namespace {

// A small number plus 1.5 * 2^23 is rounded to a whole one, which is then in the low
// bits, as two's complement.
constexpr float kRoundingAnchor = 0x1.8p23F;
constexpr uint32_t kInfiniteBits = 0x7f800000U;

TESSERA_INLINE float FloatOf(uint32_t bits) {
  float value;
  __builtin_memcpy(&value, &bits, sizeof(value));
  return value;
}

struct GroupValues {
  V16 low;
  V16 high;
};
TESSERA_INLINE GroupValues LoadGroup(const float* x, int64_t n) {
  if (n >= kRoundedGroup) {
    return {Load(x), Load(x + 16)};
  }
  return {LoadFirst(x, Smaller(n, 16)), n > 16 ? LoadFirst(x + 16, n - 16) : Zero()};
}
TESSERA_INLINE V16 Anchored(V16 values, V16 factor) {
  return Add(Mul(values, factor), Set(kRoundingAnchor));
}

void RoundRow(const float* x, const LeafGroups& leaves, const RoundedRows& out,
              int64_t row) {
  const int64_t block = row / kRoundedBlockRows * leaves.begin[leaves.count];
  const int64_t place = row % kRoundedBlockRows;
  for (int32_t leaf = 0; leaf < leaves.count; ++leaf) {
    int64_t input = leaves.input[leaf];
    for (int64_t g = leaves.begin[leaf]; g < leaves.begin[leaf + 1]; ++g) {
      const int64_t at = (block + g) * kRoundedBlockRows + place;
      const GroupValues values = LoadGroup(x + input, leaves.input[leaf + 1] - input);
      const uint32_t bits = LargestBits(values.low, values.high);
      const float largest = FloatOf(bits);
      const bool zero = bits < 0x0d800000U;  // 2^-100
      // Of a group that is not finite nothing but the scale counts.
      const bool finite = bits < kInfiniteBits;
      const V16 factor = Set(zero || !finite ? 0.0F : 127.0F / largest);
      out.scales[at] = zero ? 0.0F : finite ? largest / 127.0F : FloatOf(0x7fc00000U);
      out.offsets[at] =
          -128 * StoreInputs(Anchored(values.low, factor), Anchored(values.high, factor),
                             out.codes + at * kRoundedGroup * kRoundedValueBytes);
      input += kRoundedGroup;
    }
  }
}

// One group of a weight row, at its place in a tile.
TESSERA_INLINE void RoundWeightGroup(const float* w, int64_t n, uint8_t* codes,
                                     uint8_t* step) {
  const GroupValues values = LoadGroup(w, n);
  const uint32_t bits = LargestBits(values.low, values.high);
  // The largest divided by its step is from 64 on, and at most 127 when rounded.
  const uint32_t exponent = (bits >> 23) + ((bits & 0x7fffffU) >= 0x7f0000U ? 1U : 0U);
  const uint32_t power = exponent > 7 ? exponent - 6 : 1;
  const bool finite = bits < kInfiniteBits;
  *step = static_cast<uint8_t>(finite ? power : 255);
  int8_t bytes[kRoundedGroup];
  const V16 factor = Set(finite ? FloatOf((254 - power) << 23) : 0.0F);
  StoreLowBytes(Anchored(values.low, factor), bytes);
  StoreLowBytes(Anchored(values.high, factor), bytes + 16);
  if (!finite) {
    __builtin_memset(bytes, 0, sizeof(bytes));
  }
  for (int64_t run = 0; run < kRoundedRuns; ++run) {
    uint32_t word;
    __builtin_memcpy(&word, bytes + 4 * run, sizeof(word));
    word ^= 0x80808080U;
    __builtin_memcpy(codes + 64 * run, &word, sizeof(word));
  }
}

void RoundTile(const WeightRows& w, int64_t row, int64_t count, const LeafGroups& leaves,
               const RoundedTile& out) {
  const int64_t groups = leaves.begin[leaves.count];
  __builtin_memset(out.codes, 128, static_cast<uint64_t>(groups * kRoundedGroupBytes));
  __builtin_memset(out.steps, 1, static_cast<uint64_t>(groups * 16));
  for (int64_t i = 0; i < count; ++i) {
    DecodeRow(w, row + i, 0, leaves.input[leaves.count], out.scratch);
    for (int32_t leaf = 0; leaf < leaves.count; ++leaf) {
      int64_t input = leaves.input[leaf];
      for (int64_t g = leaves.begin[leaf]; g < leaves.begin[leaf + 1]; ++g) {
        RoundWeightGroup(out.scratch + input, leaves.input[leaf + 1] - input,
                         out.codes + g * kRoundedGroupBytes + 4 * i,
                         out.steps + g * 16 + i);
        input += kRoundedGroup;
      }
    }
  }
}

}  // namespace
}  // namespace tessera::kernels::cpu::TESSERA_SIMD_ISA

#endif  // TESSERA_KERNELS_CPU_SIMD_ROUNDED_SIMD_ROUNDING_H_
