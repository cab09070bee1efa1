// V16, sixteen float lanes, as an array: the definition of the lane arithmetic, and the
// level for any x86-64. Its bits are those of vector_avx2.h and vector_avx512.h. For
// simd_scalar.cc alone.
#ifndef TESSERA_KERNELS_CPU_SIMD_VECTOR_SCALAR_H_
#define TESSERA_KERNELS_CPU_SIMD_VECTOR_SCALAR_H_

#include "kernels/cpu/simd/simd_ops.h"

#define TESSERA_INLINE static inline __attribute__((always_inline))

namespace tessera::kernels::cpu::scalar {
namespace {

struct V16 {
  float lane[16];
};

// Rows of x that one pass over four weight rows serves.
constexpr int kXRows = 1;

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

// Sixteen values in their stored format; fp4 takes 8 bytes, low nibble first.
TESSERA_INLINE V16 DecodeBf16(const uint8_t* at) {
  return Lanes([&](int i) {
    uint16_t code;
    __builtin_memcpy(&code, at + 2 * i, sizeof(code));
    return FromBits(static_cast<uint32_t>(code) << 16);
  });
}
TESSERA_INLINE V16 DecodeF8(const uint8_t* at) {
  return Lanes([&](int i) {
    const uint32_t sign = (at[i] & 0x80U) << 24;
    const uint32_t magnitude = at[i] & 0x7fU;
    if (magnitude == 0x7f) {
      return FromBits(0x7fc00000U);
    }
    if (magnitude < 8) {
      const float value = static_cast<float>(magnitude) * 0x1p-9F;
      return FromBits(Bits(value) | sign);
    }
    return FromBits(((magnitude << 20) + (120U << 23)) | sign);
  });
}
// 2^-8 of values of which none is NaN, and whether one of n is (n a multiple of 16):
// where the instruction set has a short way for finite values.
TESSERA_INLINE V16 DecodeFiniteF8(const uint8_t* at) {
  return Mul(DecodeF8(at), Set(0x1p-8F));
}
TESSERA_INLINE bool HasNanF8(const uint8_t* at, int64_t n) {
  bool found = false;
  for (int64_t i = 0; i < n; ++i) {
    found |= (at[i] & 0x7f) == 0x7f;
  }
  return found;
}
TESSERA_INLINE V16 DecodeFirstE8M0(const uint8_t* at, int64_t n) {  // then zeros
  return Lanes([&](int i) {
    if (i >= n) {
      return 0.0F;
    }
    if (at[i] == 0 || at[i] == 255) {  // 2^-127 is below the smallest normal
      return FromBits(at[i] == 0 ? 0x00400000U : 0x7fc00000U);
    }
    return FromBits(static_cast<uint32_t>(at[i]) << 23);
  });
}
TESSERA_INLINE V16 DecodeFp4(const uint8_t* at) {
  return Lanes([&](int i) {
    const float magnitudes[8] = {0.0F, 0.5F, 1.0F, 1.5F, 2.0F, 3.0F, 4.0F, 6.0F};
    const auto code = static_cast<uint32_t>(i % 2 == 0 ? at[i / 2] & 15 : at[i / 2] >> 4);
    return FromBits(Bits(magnitudes[code & 7]) | ((code & 8U) << 28));
  });
}

// ---- integers ----

// Sixteen words of 32 bits, or their 64 bytes.
struct I16 {
  int32_t lane[16];
};

TESSERA_INLINE I16 LoadBytes(const void* at) {
  I16 out;
  __builtin_memcpy(out.lane, at, sizeof(out.lane));
  return out;
}
TESSERA_INLINE I16 LoadInts(const int32_t* at) { return LoadBytes(at); }
TESSERA_INLINE I16 ZeroInts() { return {}; }
TESSERA_INLINE I16 AddInts(const I16& a, const I16& b) {
  I16 out;
  for (int i = 0; i < 16; ++i) {
    out.lane[i] = a.lane[i] + b.lane[i];
  }
  return out;
}
TESSERA_INLINE V16 IntsToFloats(const I16& a) {
  return Lanes([&](int i) { return static_cast<float>(a.lane[i]); });
}
// Word 4 b + j of vector r becomes word 4 b + r of vector j.
TESSERA_INLINE void TransposeWords(I16* v) {
  for (int b = 0; b < 16; b += 4) {
    for (int r = 0; r < 4; ++r) {
      for (int j = 0; j < r; ++j) {
        const int32_t word = v[r].lane[b + j];
        v[r].lane[b + j] = v[j].lane[b + r];
        v[j].lane[b + r] = word;
      }
    }
  }
}
TESSERA_INLINE I16 LowNibbles(const I16& a) {
  I16 out;
  for (int i = 0; i < 16; ++i) {
    out.lane[i] = a.lane[i] & 0x0f0f0f0f;
  }
  return out;
}
TESSERA_INLINE I16 HighNibbles(const I16& a) {
  I16 out;
  for (int i = 0; i < 16; ++i) {
    out.lane[i] = (a.lane[i] >> 4) & 0x0f0f0f0f;
  }
  return out;
}
// Of each e2m1 code: twice its value, plus 12.
TESSERA_INLINE I16 Fp4Steps(const I16& codes) {
  constexpr uint8_t kSteps[16] = {12, 13, 14, 15, 16, 18, 20, 24,
                                  12, 11, 10, 9,  8,  6,  4,  0};
  uint8_t bytes[64];
  __builtin_memcpy(bytes, codes.lane, sizeof(bytes));
  for (uint8_t& byte : bytes) {
    byte = kSteps[byte];
  }
  return LoadBytes(bytes);
}
// sum[l] + the products of the four bytes of lane l, `a` without and `b` with sign. The
// bytes of `a` are at most 24.
TESSERA_INLINE I16 AddDots(I16 sum, const I16& a, const I16& b) {
  uint8_t x[64];
  int8_t y[64];
  __builtin_memcpy(x, a.lane, sizeof(x));
  __builtin_memcpy(y, b.lane, sizeof(y));
  for (int i = 0; i < 64; ++i) {
    sum.lane[i / 4] += x[i] * y[i];
  }
  return sum;
}
// Scales of 16 groups by lane: Int8GroupOfLane says which.
TESSERA_INLINE V16 DecodeLaneE8M0(const uint8_t* at) {
  uint8_t lanes[16];
  for (int64_t lane = 0; lane < 16; ++lane) {
    lanes[lane] = at[Int8GroupOfLane(lane)];
  }
  return DecodeFirstE8M0(lanes, 16);
}

}  // namespace
}  // namespace tessera::kernels::cpu::scalar

#endif  // TESSERA_KERNELS_CPU_SIMD_VECTOR_SCALAR_H_
