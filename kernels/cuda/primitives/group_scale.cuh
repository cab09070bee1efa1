// Codes and group scales of fp8 and fp4 on the device: the same bits as
// model/formats/number_formats.h and kernels/group_scale.h.
#ifndef TESSERA_KERNELS_CUDA_PRIMITIVES_GROUP_SCALE_CUH_
#define TESSERA_KERNELS_CUDA_PRIMITIVES_GROUP_SCALE_CUH_

#include <cmath>
#include <cstdint>
#include <cstring>

#include "kernels/cuda/primitives/weight_decode.cuh"
#include "kernels/group_scale.h"

namespace tessera::kernels::cuda {

// What a group of values becomes, and of which kind its scale is.
enum class GroupCode { kE4M3, kFp4E8M0, kFp4E4M3 };

TESSERA_DEVICE inline uint32_t BitsOfFloat(float value) {
  uint32_t bits;
  memcpy(&bits, &value, sizeof(bits));
  return bits;
}

TESSERA_DEVICE inline bool IsNan(float value) {
  return (BitsOfFloat(value) & 0x7fffffffU) > 0x7f800000U;
}

// To nearest, ties to even; beyond 448 saturates, a NaN stays one.
TESSERA_DEVICE inline uint32_t EncodeE4M3(float value) {
  const uint32_t bits = BitsOfFloat(value);
  const uint32_t magnitude = bits & 0x7fffffffU;
  const uint32_t sign = (bits >> 24) & 0x80U;
  if (IsNan(value)) {
    return sign | 0x7fU;
  }
  if (magnitude >= BitsOfFloat(448.0F)) {
    return sign | 0x7eU;
  }
  if (magnitude < BitsOfFloat(0x1p-6F)) {
    // Codes step by 2^-9 here, the last bit of a float near 2^14: the addition rounds.
    return sign | (BitsOfFloat(FloatOfBits(magnitude) + 0x1p14F) - BitsOfFloat(0x1p14F));
  }
  const uint32_t rounded = (magnitude + 0x7ffffU + ((magnitude >> 20) & 1U)) >> 20;
  return sign | (rounded - ((127U - 7U) << 3));
}

// The same for e2m1 and its limit of 6. `value` is no NaN.
TESSERA_DEVICE inline uint32_t EncodeE2M1(float value) {
  const float a = fabsf(value);
  // Midpoints go to the even code, hence > and >= by turns.
  const int code = (a > 0.25F) + (a >= 0.75F) + (a > 1.25F) + (a >= 1.75F) + (a > 2.5F) +
                   (a >= 3.5F) + (a > 5.0F);
  return static_cast<uint32_t>(code) | (BitsOfFloat(value) >> 31 << 3);
}

// Every NaN becomes 0x7fc0.
TESSERA_DEVICE inline uint32_t EncodeBf16(float value) {
  const uint32_t bits = BitsOfFloat(value);
  if (IsNan(value)) {
    return 0x7fc0U;
  }
  return (bits + 0x7fffU + ((bits >> 16) & 1U)) >> 16;
}

// The smallest power of two >= value, which is positive and finite.
TESSERA_DEVICE inline float PowerOfTwoCeil(float value) {
  const uint32_t bits = BitsOfFloat(value);
  return FloatOfBits(((bits >> 23) + ((bits & 0x7fffffU) != 0 ? 1U : 0U)) << 23);
}

// Of a group whose largest magnitude is `largest`, which is finite.
TESSERA_DEVICE inline float GroupScale(GroupCode code, float largest) {
  switch (code) {
    case GroupCode::kE4M3:
      return PowerOfTwoCeil(fmaxf(largest, 1e-4F) * (1.0F / 448.0F));
    case GroupCode::kFp4E8M0:
      return PowerOfTwoCeil(fmaxf(largest, 6.0F * 0x1p-126F) * (1.0F / 6.0F));
    case GroupCode::kFp4E4M3:
      break;
  }
  return DecodeE4M3(EncodeE4M3(fmaxf(largest, 6.0F * 0x1p-9F) / 6.0F));
}

// The nearest value that the code of `value` / scale stands for, times the scale.
TESSERA_DEVICE inline float RoundInGroup(GroupCode code, float value, float scale) {
  const float scaled = value / scale;
  return (code == GroupCode::kE4M3 ? DecodeE4M3(EncodeE4M3(scaled))
                                   : DecodeE2M1(EncodeE2M1(scaled))) *
         scale;
}

// The largest of the lanes' magnitudes, or a NaN if one of them is damaged.
TESSERA_DEVICE inline float LargestOfWarp(Thread& thread, float largest, bool damaged) {
  for (uint32_t lanes = kWarpSize / 2; lanes > 0; lanes /= 2) {
    largest = fmaxf(largest, thread.ShuffleXor(largest, lanes));
  }
  return thread.Ballot(damaged) != 0 ? FloatOfBits(0x7fc00000U) : largest;
}

// max |x| over x[begin, begin + count), or a NaN if one is not finite; by a whole warp.
TESSERA_DEVICE inline float LargestMagnitude(Thread& thread, GlobalSpan<const float> x,
                                             int64_t begin, int64_t count) {
  float largest = 0;
  bool damaged = false;
  for (int64_t i = thread.lane(); i < count; i += kWarpSize) {
    const uint32_t magnitude = BitsOfFloat(thread.Load(x, begin + i)) & 0x7fffffffU;
    damaged = damaged || magnitude >= 0x7f800000U;
    largest = fmaxf(largest, FloatOfBits(magnitude));
  }
  return LargestOfWarp(thread, largest, damaged);
}

}  // namespace tessera::kernels::cuda

#endif  // TESSERA_KERNELS_CUDA_PRIMITIVES_GROUP_SCALE_CUH_
