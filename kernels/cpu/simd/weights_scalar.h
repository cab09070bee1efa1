// Stored weights as lanes, and integer lanes, without instructions of their own: the
// definition of what weights_avx2.h and weights_avx512.h do. For simd_scalar.cc alone,
// after vector_scalar.h.
#ifndef TESSERA_KERNELS_CPU_SIMD_WEIGHTS_SCALAR_H_
#define TESSERA_KERNELS_CPU_SIMD_WEIGHTS_SCALAR_H_

#include "kernels/cpu/simd/vector_scalar.h"

namespace tessera::kernels::cpu::scalar {
namespace {

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
// 2^-8 of 32 values of which none is NaN: where the instruction set has a short way.
TESSERA_INLINE void DecodeFiniteF8(const uint8_t* at, V16* out) {
  out[0] = Mul(DecodeF8(at), Set(0x1p-8F));
  out[1] = Mul(DecodeF8(at + 16), Set(0x1p-8F));
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

// What LookUpFp4 needs of a scale to give 32 values times it. Their order inside each
// sixteen is that of ToFp4Order, the one that costs least.
TESSERA_INLINE V16 Fp4Products(float scale) { return Set(scale); }
TESSERA_INLINE void LookUpFp4(const uint8_t* at, const V16& products, V16* out) {
  out[0] = Mul(DecodeFp4(at), products);
  out[1] = Mul(DecodeFp4(at + 8), products);
}
TESSERA_INLINE V16 ToFp4Order(const V16& v) { return v; }
TESSERA_INLINE V16 FromFp4Order(const V16& v) { return v; }

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
// The first n bytes, a multiple of 4, then zeros; n may be more than 64.
TESSERA_INLINE I16 LoadFirstBytes(const uint8_t* at, int64_t n) {
  I16 out = {};
  __builtin_memcpy(out.lane, at, static_cast<uint64_t>(n < 64 ? n : 64));
  return out;
}
TESSERA_INLINE void StoreBytes(const I16& v, uint8_t* at) {
  __builtin_memcpy(at, v.lane, sizeof(v.lane));
}
TESSERA_INLINE I16 LoadInts(const int32_t* at) { return LoadBytes(at); }
TESSERA_INLINE I16 ZeroInts() { return {}; }
TESSERA_INLINE I16 SetInts(int32_t value) {
  I16 out;
  for (int32_t& lane : out.lane) {
    lane = value;
  }
  return out;
}
TESSERA_INLINE I16 LoadTwice(const uint8_t* at) {  // 32 bytes, two times
  uint8_t bytes[64];
  __builtin_memcpy(bytes, at, 32);
  __builtin_memcpy(bytes + 32, at, 32);
  return LoadBytes(bytes);
}
// By byte, the larger of `a` and the magnitude of an e4m3 code; and whether a byte is the
// magnitude of NaN, the largest there is.
TESSERA_INLINE I16 LargerF8(const I16& a, const I16& codes) {
  uint8_t larger[64];
  uint8_t other[64];
  __builtin_memcpy(larger, a.lane, sizeof(larger));
  __builtin_memcpy(other, codes.lane, sizeof(other));
  for (int i = 0; i < 64; ++i) {
    const auto magnitude = static_cast<uint8_t>(other[i] & 0x7f);
    larger[i] = larger[i] < magnitude ? magnitude : larger[i];
  }
  return LoadBytes(larger);
}
TESSERA_INLINE bool HoldsNanF8(const I16& a) {
  uint8_t bytes[64];
  __builtin_memcpy(bytes, a.lane, sizeof(bytes));
  bool found = false;
  for (const uint8_t byte : bytes) {
    found |= byte == 0x7f;
  }
  return found;
}
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
// Words 4 p..4 p + 3 of vector r become words 4 r..4 r + 3 of vector p.
TESSERA_INLINE void TransposePieces(I16* v) {
  for (int r = 0; r < 4; ++r) {
    for (int p = 0; p < r; ++p) {
      for (int i = 0; i < 4; ++i) {
        const int32_t word = v[r].lane[4 * p + i];
        v[r].lane[4 * p + i] = v[p].lane[4 * r + i];
        v[p].lane[4 * r + i] = word;
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

// ---- sums of products of bytes, in parts of 16 lanes ----

constexpr int kDotParts = 1;   // of 16 lanes
constexpr int kInt8XRows = 1;  // rows of x that four weight rows meet at a time
using DotPart = I16;           // sums of products of bytes, or the bytes
using FloatPart = V16;

// The lowest bytes of 32 lanes.
TESSERA_INLINE void PackGroup(const V16& low, const V16& high, GroupWords* out) {
  out->first = 0;
  out->second = 0;
  for (int word = 0; word < 8; ++word) {
    out->words[word] = 0;
    for (int i = 0; i < 4; ++i) {
      const int lane = word / 2 * 8 + 2 * i + word % 2;
      const uint32_t byte =
          Bits(lane < 16 ? low.lane[lane] : high.lane[lane - 16]) & 0xffU;
      out->words[word] |= byte << (8 * i);
      (i < 2 ? out->first : out->second) += static_cast<int8_t>(byte);
    }
  }
}
// What the sum of a group of x begins with: -12 times the sum of its codes, given as that
// of the first two and of the last two bytes of its words.
TESSERA_INLINE int32_t DotOffset(int32_t first, int32_t second) {
  return -12 * (first + second);
}
TESSERA_INLINE DotPart LoadPart(const void* at, int) { return LoadBytes(at); }
TESSERA_INLINE DotPart PartOf(const I16& v, int) { return v; }
TESSERA_INLINE FloatPart PartOf(const V16& v, int) { return v; }
TESSERA_INLINE void SetPart(V16* v, int, const FloatPart& value) { *v = value; }
TESSERA_INLINE FloatPart LoadFloatPart(const float* at, int) { return Load(at); }
// sum + the products of unsigned bytes of a, at most 24, and signed ones of b, by lane.
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
TESSERA_INLINE FloatPart FloatsOf(const DotPart& sum) { return IntsToFloats(sum); }
TESSERA_INLINE FloatPart MulPart(const FloatPart& a, const FloatPart& b) {
  return Mul(a, b);
}
TESSERA_INLINE FloatPart FmaPart(const FloatPart& a, const FloatPart& b,
                                 const FloatPart& c) {
  return Fma(a, b, c);
}
// Scales of 16 groups by lane, of which n exist; Int8GroupOfLane says which. The others
// are finite.
TESSERA_INLINE V16 DecodeLaneE8M0(const uint8_t* at, int64_t n) {
  uint8_t lanes[16];
  for (int64_t lane = 0; lane < 16; ++lane) {
    const int64_t group = Int8GroupOfLane(lane);
    lanes[lane] = group < n ? at[group] : 127;
  }
  return DecodeFirstE8M0(lanes, 16);
}

}  // namespace
}  // namespace tessera::kernels::cpu::scalar

#endif  // TESSERA_KERNELS_CPU_SIMD_WEIGHTS_SCALAR_H_
