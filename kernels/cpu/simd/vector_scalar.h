// V16, sixteen float lanes, as an array: the definition of the lane arithmetic, and the
// level for any x86-64. Its bits are those of vector_avx2.h and vector_avx512.h. For
// simd_scalar.cc alone.
#ifndef TESSERA_KERNELS_CPU_SIMD_VECTOR_SCALAR_H_
#define TESSERA_KERNELS_CPU_SIMD_VECTOR_SCALAR_H_

#include "kernels/cpu/simd/simd_ops.h"

#define TESSERA_INLINE static inline __attribute__((always_inline))
#define TESSERA_APART __attribute__((noinline))

namespace tessera::kernels::cpu::scalar {
namespace {

struct V16 {
  float lane[16];
};

// Rows of x that one pass over four weight rows serves.
constexpr int kXRows = 1;

// What latent attention has in registers: cached rows, heads, vectors of columns.
constexpr int kLatentKeys = 1;
constexpr int kLatentHeads = 1;
constexpr int kLatentColumns = 1;

TESSERA_INLINE V16 Set(float value) {
  V16 out;
  for (float& lane : out.lane) {
    lane = value;
  }
  return out;
}
TESSERA_INLINE V16 Zero() { return Set(0.0F); }
TESSERA_INLINE V16 LoadFirst(const float* at, int64_t n) {  // lanes from n on are zero
  V16 out;
  for (int64_t i = 0; i < 16; ++i) {
    out.lane[i] = i < n ? at[i] : 0.0F;
  }
  return out;
}
TESSERA_INLINE V16 Load(const float* at) { return LoadFirst(at, 16); }
TESSERA_INLINE void StoreFirst(const V16& v, float* at, int64_t n) {
  for (int64_t i = 0; i < n; ++i) {
    at[i] = v.lane[i];
  }
}
TESSERA_INLINE void Store(const V16& v, float* at) { StoreFirst(v, at, 16); }

template <typename Op>
TESSERA_INLINE V16 Lanes(Op op) {
  V16 out;
  for (int i = 0; i < 16; ++i) {
    out.lane[i] = op(i);
  }
  return out;
}
TESSERA_INLINE V16 Add(const V16& a, const V16& b) {
  return Lanes([&](int i) { return a.lane[i] + b.lane[i]; });
}
TESSERA_INLINE V16 Sub(const V16& a, const V16& b) {
  return Lanes([&](int i) { return a.lane[i] - b.lane[i]; });
}
TESSERA_INLINE V16 Mul(const V16& a, const V16& b) {
  return Lanes([&](int i) { return a.lane[i] * b.lane[i]; });
}
TESSERA_INLINE V16 Div(const V16& a, const V16& b) {
  return Lanes([&](int i) { return a.lane[i] / b.lane[i]; });
}
TESSERA_INLINE V16 Fma(const V16& a, const V16& b,
                       const V16& c) {  // a * b + c, one rounding
  return Lanes([&](int i) { return __builtin_fmaf(a.lane[i], b.lane[i], c.lane[i]); });
}
// As the instructions do: the second operand if they are equal or one is NaN.
TESSERA_INLINE V16 Max(const V16& a, const V16& b) {
  return Lanes([&](int i) { return a.lane[i] > b.lane[i] ? a.lane[i] : b.lane[i]; });
}
TESSERA_INLINE V16 Min(const V16& a, const V16& b) {
  return Lanes([&](int i) { return a.lane[i] < b.lane[i] ? a.lane[i] : b.lane[i]; });
}

TESSERA_INLINE uint32_t Bits(float value) {
  uint32_t bits;
  __builtin_memcpy(&bits, &value, sizeof(bits));
  return bits;
}
TESSERA_INLINE float FromBits(uint32_t bits) {
  float value;
  __builtin_memcpy(&value, &bits, sizeof(value));
  return value;
}

TESSERA_INLINE V16 Abs(const V16& a) {
  return Lanes([&](int i) { return FromBits(Bits(a.lane[i]) & 0x7fffffffU); });
}
// The magnitude of `a` (which has no sign) with the sign of `b`.
TESSERA_INLINE V16 CopySign(const V16& a, const V16& b) {
  return Lanes(
      [&](int i) { return FromBits(Bits(a.lane[i]) | (Bits(b.lane[i]) & 0x80000000U)); });
}
// x where a < b, else y.
TESSERA_INLINE V16 SelectLess(const V16& a, const V16& b, const V16& x, const V16& y) {
  return Lanes([&](int i) { return a.lane[i] < b.lane[i] ? x.lane[i] : y.lane[i]; });
}
// Positive values without the last kBits of their mantissas: nearest, ties to even.
// Adding just under half of the last kept bit, and one more if that bit is odd, carries
// exactly when the value rounds up.
template <int kBits>
TESSERA_INLINE V16 RoundMantissa(const V16& a) {
  return Lanes([&](int i) {
    const uint32_t bits = Bits(a.lane[i]);
    const uint32_t odd = (bits >> kBits) & 1U;
    return FromBits((bits + ((1U << (kBits - 1)) - 1U) + odd) & ~((1U << kBits) - 1U));
  });
}

// Adds the lanes as ((l, l+8), (l, l+4), (l, l+2), (l, l+1)).
TESSERA_INLINE float Reduce(V16 v) {
  for (int distance = 8; distance > 0; distance /= 2) {
    for (int i = 0; i < distance; ++i) {
      v.lane[i] = v.lane[i] + v.lane[i + distance];
    }
  }
  return v.lane[0];
}
TESSERA_INLINE void Reduce4(const V16& a, const V16& b, const V16& c, const V16& d,
                            float* out) {
  out[0] = Reduce(a);
  out[1] = Reduce(b);
  out[2] = Reduce(c);
  out[3] = Reduce(d);
}

// Lane i becomes lane i ^ kDistance: 1, 2, 4 or 8.
template <int kDistance>
TESSERA_INLINE V16 SwapLanes(const V16& v) {
  V16 out;
  for (int i = 0; i < 16; ++i) {
    out.lane[i] = v.lane[i ^ kDistance];
  }
  return out;
}

// Reduces v[j][o] into out[j][o], sixteen at once.
TESSERA_INLINE void Reduce16(const V16 (*v)[4], float (*out)[4]) {
  for (int j = 0; j < 4; ++j) {
    Reduce4(v[j][0], v[j][1], v[j][2], v[j][3], out[j]);
  }
}

// `shifted` = shifter + n with the integer n in its low bits: two powers whose product is
// 2^n, so that results below the smallest normal are reached by a last rounding.
TESSERA_INLINE void PowersOfTwo(const V16& shifted, const V16& shifter, V16* first,
                                V16* second) {
  for (int i = 0; i < 16; ++i) {
    const auto n = static_cast<int32_t>(Bits(shifted.lane[i]) - Bits(shifter.lane[i]));
    const int32_t low = n >> 1;
    first->lane[i] = FromBits((static_cast<uint32_t>(low) + 127U) << 23);
    second->lane[i] =
        FromBits((static_cast<uint32_t>(n) - static_cast<uint32_t>(low) + 127U) << 23);
  }
}

}  // namespace
}  // namespace tessera::kernels::cpu::scalar

#endif  // TESSERA_KERNELS_CPU_SIMD_VECTOR_SCALAR_H_
