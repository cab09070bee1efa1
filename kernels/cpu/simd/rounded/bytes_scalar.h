// What simd_rounded.h needs of bytes, as arrays: the definition. The same functions with
// the same bits are in bytes_avx2.h and bytes_avx512.h. For simd_scalar.cc alone.
#ifndef TESSERA_KERNELS_CPU_SIMD_ROUNDED_BYTES_SCALAR_H_
#define TESSERA_KERNELS_CPU_SIMD_ROUNDED_BYTES_SCALAR_H_

#include "kernels/cpu/simd/simd_ops.h"
#include "kernels/cpu/simd/vector_scalar.h"
#include "kernels/cpu/simd/weights_scalar.h"

namespace tessera::kernels::cpu::scalar {
namespace {

// Tiles of 16 weight rows, and rows of x, whose sums are in registers together.
constexpr int kRoundedTiles = 1;
constexpr int kRoundedXRows = 1;

// The bits of the largest magnitude; of NaN and infinity 0x7f800000 or more.
TESSERA_INLINE uint32_t LargestBits(const V16& a, const V16& b) {
  uint32_t largest = 0;
  for (int i = 0; i < 16; ++i) {
    const uint32_t first = Bits(a.lane[i]) & 0x7fffffffU;
    const uint32_t second = Bits(b.lane[i]) & 0x7fffffffU;
    largest = largest < first ? first : largest;
    largest = largest < second ? second : largest;
  }
  return largest;
}
// The lowest byte of every lane.
TESSERA_INLINE void StoreLowBytes(const V16& v, int8_t* at) {
  for (int i = 0; i < 16; ++i) {
    at[i] = static_cast<int8_t>(Bits(v.lane[i]) & 0xff);
  }
}

// Inputs: codes as they are, a byte each.
constexpr int64_t kRoundedValueBytes = 1;
using RoundedInput = I16;    // four inputs of a row of x, in every lane
using RoundedWeights = I16;  // four inputs of 16 weight rows, each a code plus 128

// The lowest bytes of 32 lanes as the inputs of a group, to `at`; their sum.
TESSERA_INLINE int32_t StoreInputs(const V16& low, const V16& high, int8_t* at) {
  StoreLowBytes(low, at);
  StoreLowBytes(high, at + 16);
  int32_t sum = 0;
  for (int i = 0; i < 32; ++i) {
    sum += at[i];
  }
  return sum;
}
TESSERA_INLINE RoundedInput LoadInput(const int8_t* at) {
  I16 out;
  for (int32_t& lane : out.lane) {
    __builtin_memcpy(&lane, at, sizeof(lane));
  }
  return out;
}
TESSERA_INLINE RoundedWeights LoadWeights(const uint8_t* at) { return LoadBytes(at); }
// What a sum of AddBiasedDots begins with, of a group of x whose codes sum up to
// offset / -128.
TESSERA_INLINE I16 StartDots(int32_t) { return ZeroInts(); }
// sum[l] + the products of the four inputs of lane l. What the 128 adds is either left
// out here or taken off by StartDots.
TESSERA_INLINE I16 AddBiasedDots(I16 sum, const RoundedWeights& w,
                                 const RoundedInput& x) {
  uint8_t a[64];
  int8_t b[64];
  __builtin_memcpy(a, w.lane, sizeof(a));
  __builtin_memcpy(b, x.lane, sizeof(b));
  for (int i = 0; i < 64; ++i) {
    sum.lane[i / 4] += (a[i] - 128) * b[i];
  }
  return sum;
}
// 2^(byte - 127) of sixteen bytes from 1 on; 255 is infinite.
TESSERA_INLINE V16 DecodeSteps(const uint8_t* at) {
  return Lanes([&](int i) { return FromBits(static_cast<uint32_t>(at[i]) << 23); });
}

// ---- attention ----

// Cached rows whose scores, and heads and vectors of columns whose sums, are in registers
// together.
constexpr int kScoreRows = 1;
constexpr int kSumHeads = 1;
constexpr int kSumColumns = 1;

// Byte i of lane l: the lowest byte of lane l of the i-th.
TESSERA_INLINE I16 PackLowBytes(const V16* v) {
  I16 out;
  for (int l = 0; l < 16; ++l) {
    uint32_t word = 0;
    for (int i = 0; i < 4; ++i) {
      word |= (Bits(v[i].lane[l]) & 0xffU) << (8 * i);
    }
    out.lane[l] = static_cast<int32_t>(word);
  }
  return out;
}
// Four rows of 16 columns.
using RowValues = I16;
TESSERA_INLINE RowValues LoadRowValues(const uint8_t* at) { return LoadBytes(at); }
// Four probabilities of a head, bytes without sign, in every lane; of 16 heads they take
// kProbabilityBytes.
constexpr int64_t kProbabilityBytes = 64;
using Probabilities = I16;
TESSERA_INLINE void StoreProbabilities(const V16* v, uint8_t* at) {
  StoreBytes(PackLowBytes(v), at);
}
TESSERA_INLINE Probabilities LoadProbabilities(const uint8_t* at, int64_t head) {
  I16 out;
  for (int32_t& lane : out.lane) {
    __builtin_memcpy(&lane, at + 4 * head, sizeof(lane));
  }
  return out;
}
// sum[l] + the products of the four rows of column l.
TESSERA_INLINE I16 AddRowDots(I16 sum, const RowValues& v, const Probabilities& p) {
  int8_t a[64];
  uint8_t b[64];
  __builtin_memcpy(a, v.lane, sizeof(a));
  __builtin_memcpy(b, p.lane, sizeof(b));
  for (int i = 0; i < 64; ++i) {
    sum.lane[i / 4] += a[i] * b[i];
  }
  return sum;
}

}  // namespace
}  // namespace tessera::kernels::cpu::scalar

#endif  // TESSERA_KERNELS_CPU_SIMD_ROUNDED_BYTES_SCALAR_H_
