// Stored weights as lanes, and integer lanes, with AVX-512; weights_scalar.h says what
// each function does. For simd_avx512.cc and simd_avx512vnni.cc alone, after
// vector_avx512.h.
#ifndef TESSERA_KERNELS_CPU_SIMD_WEIGHTS_AVX512_H_
#define TESSERA_KERNELS_CPU_SIMD_WEIGHTS_AVX512_H_

#include "kernels/cpu/simd/vector_avx512.h"
#include "kernels/cpu/simd/weights_x86.h"

namespace tessera::kernels::cpu::TESSERA_SIMD_ISA {
namespace {

TESSERA_INLINE V16 DecodeBf16(const uint8_t* at) {
  const __m256i codes = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(at));
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(codes), 16));
}
// e4m3 has the bits of a half with a smaller exponent bias: move them there, convert,
// times 2^8.
TESSERA_INLINE V16 DecodeF8(const uint8_t* at) {
  const __m128i codes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(at));
  const __m256i wide = _mm256_cvtepu8_epi16(codes);
  const __m256i magnitude = _mm256_and_si256(wide, _mm256_set1_epi16(0x7f));
  const __m256i sign = _mm256_and_si256(wide, _mm256_set1_epi16(0x80));
  const __mmask16 nan = _mm256_cmpeq_epi16_mask(magnitude, _mm256_set1_epi16(0x7f));
  __m256i half =
      _mm256_or_si256(_mm256_slli_epi16(magnitude, 7), _mm256_slli_epi16(sign, 8));
  half = _mm256_mask_mov_epi16(half, nan, _mm256_set1_epi16(0x7e00));
  return _mm512_mul_ps(_mm512_cvtph_ps(half), _mm512_set1_ps(256.0F));
}
// The bits of e4m3 moved into a half: the sign-extended code carries its sign along.
TESSERA_INLINE void DecodeFiniteF8(const uint8_t* at, V16* out) {
  const __m512i wide =
      _mm512_cvtepi8_epi16(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(at)));
  const __m512i half =
      _mm512_and_si512(_mm512_slli_epi16(wide, 7), _mm512_set1_epi16(-0x4080));
  out[0] = _mm512_cvtph_ps(_mm512_castsi512_si256(half));
  out[1] = _mm512_cvtph_ps(_mm512_extracti64x4_epi64(half, 1));
}
TESSERA_INLINE V16 E8M0Lanes(__m512i codes, __mmask16 lanes) {
  __m512i bits = _mm512_slli_epi32(codes, 23);
  bits = _mm512_mask_mov_epi32(
      bits, _mm512_mask_cmpeq_epi32_mask(lanes, codes, _mm512_setzero_si512()),
      _mm512_set1_epi32(0x00400000));
  bits =
      _mm512_mask_mov_epi32(bits, _mm512_cmpeq_epi32_mask(codes, _mm512_set1_epi32(255)),
                            _mm512_set1_epi32(0x7fc00000));
  return _mm512_castsi512_ps(bits);
}
TESSERA_INLINE V16 DecodeFirstE8M0(const uint8_t* at, int64_t n) {
  const __mmask16 lanes = FirstLanes(n);
  return E8M0Lanes(_mm512_cvtepu8_epi32(_mm_maskz_loadu_epi8(lanes, at)), lanes);
}
TESSERA_INLINE V16 Fp4Values() {
  return _mm512_setr_ps(0.0F, 0.5F, 1.0F, 1.5F, 2.0F, 3.0F, 4.0F, 6.0F, -0.0F, -0.5F,
                        -1.0F, -1.5F, -2.0F, -3.0F, -4.0F, -6.0F);
}
// Lane i gets the 32 bits that hold its nibble, moved down; the permutation looks at the
// low four bits alone.
TESSERA_INLINE V16 DecodeFp4(const uint8_t* at) {
  const __m128i pairs = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(at));
  const __m512i half = _mm512_setr_epi32(0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1);
  const __m512i shift =
      _mm512_setr_epi32(0, 4, 8, 12, 16, 20, 24, 28, 0, 4, 8, 12, 16, 20, 24, 28);
  const __m512i words = _mm512_permutexvar_epi32(half, _mm512_castsi128_si512(pairs));
  return _mm512_permutexvar_ps(_mm512_srlv_epi32(words, shift), Fp4Values());
}
TESSERA_INLINE V16 Fp4Products(float scale) { return Mul(Fp4Values(), Set(scale)); }
// Sixteen nibbles in every 64 bits, shifted by j of them in place j: the low half then
// begins with nibble j, the high one with nibble j + 8. That order saves a permutation.
TESSERA_INLINE void LookUpFp4(const uint8_t* at, V16 products, V16* out) {
  const __m512i shift = _mm512_setr_epi64(0, 4, 8, 12, 16, 20, 24, 28);
#pragma GCC unroll 2
  for (int half = 0; half < 2; ++half) {
    int64_t nibbles;
    __builtin_memcpy(&nibbles, at + 8 * half, sizeof(nibbles));
    out[half] = _mm512_permutexvar_ps(
        _mm512_srlv_epi64(_mm512_set1_epi64(nibbles), shift), products);
  }
}
TESSERA_INLINE V16 ToFp4Order(V16 v) {
  return _mm512_permutexvar_ps(
      _mm512_setr_epi32(0, 8, 1, 9, 2, 10, 3, 11, 4, 12, 5, 13, 6, 14, 7, 15), v);
}
TESSERA_INLINE V16 FromFp4Order(V16 v) {
  return _mm512_permutexvar_ps(
      _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 1, 3, 5, 7, 9, 11, 13, 15), v);
}

// ---- integers ----

using I16 = __m512i;

TESSERA_INLINE I16 LoadBytes(const void* at) { return _mm512_loadu_si512(at); }
TESSERA_INLINE I16 LoadFirstBytes(const uint8_t* at, int64_t n) {
  const int64_t missing = n < 64 ? 64 - n : 0;
  return _mm512_maskz_loadu_epi8(~uint64_t{0} >> missing, at);
}
TESSERA_INLINE void StoreBytes(I16 v, uint8_t* at) { _mm512_storeu_si512(at, v); }
TESSERA_INLINE I16 LoadInts(const int32_t* at) { return _mm512_loadu_si512(at); }
TESSERA_INLINE I16 ZeroInts() { return _mm512_setzero_si512(); }
TESSERA_INLINE I16 SetInts(int32_t value) { return _mm512_set1_epi32(value); }
TESSERA_INLINE I16 LoadTwice(const uint8_t* at) {
  return _mm512_broadcast_i64x4(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(at)));
}
TESSERA_INLINE I16 LargerF8(I16 a, I16 codes) {
  return _mm512_max_epu8(a, _mm512_and_si512(codes, _mm512_set1_epi8(0x7f)));
}
TESSERA_INLINE bool HoldsNanF8(I16 a) {
  return _mm512_cmpeq_epi8_mask(a, _mm512_set1_epi8(0x7f)) != 0;
}
TESSERA_INLINE I16 AddInts(I16 a, I16 b) { return _mm512_add_epi32(a, b); }
TESSERA_INLINE V16 IntsToFloats(I16 a) { return _mm512_cvtepi32_ps(a); }
TESSERA_INLINE void TransposeWords(I16* v) {
  const I16 low01 = _mm512_unpacklo_epi32(v[0], v[1]);
  const I16 high01 = _mm512_unpackhi_epi32(v[0], v[1]);
  const I16 low23 = _mm512_unpacklo_epi32(v[2], v[3]);
  const I16 high23 = _mm512_unpackhi_epi32(v[2], v[3]);
  v[0] = _mm512_unpacklo_epi64(low01, low23);
  v[1] = _mm512_unpackhi_epi64(low01, low23);
  v[2] = _mm512_unpacklo_epi64(high01, high23);
  v[3] = _mm512_unpackhi_epi64(high01, high23);
}
TESSERA_INLINE void TransposePieces(I16* v) {
  const I16 low01 = _mm512_shuffle_i32x4(v[0], v[1], _MM_SHUFFLE(1, 0, 1, 0));
  const I16 high01 = _mm512_shuffle_i32x4(v[0], v[1], _MM_SHUFFLE(3, 2, 3, 2));
  const I16 low23 = _mm512_shuffle_i32x4(v[2], v[3], _MM_SHUFFLE(1, 0, 1, 0));
  const I16 high23 = _mm512_shuffle_i32x4(v[2], v[3], _MM_SHUFFLE(3, 2, 3, 2));
  v[0] = _mm512_shuffle_i32x4(low01, low23, _MM_SHUFFLE(2, 0, 2, 0));
  v[1] = _mm512_shuffle_i32x4(low01, low23, _MM_SHUFFLE(3, 1, 3, 1));
  v[2] = _mm512_shuffle_i32x4(high01, high23, _MM_SHUFFLE(2, 0, 2, 0));
  v[3] = _mm512_shuffle_i32x4(high01, high23, _MM_SHUFFLE(3, 1, 3, 1));
}
TESSERA_INLINE I16 LowNibbles(I16 a) {
  return _mm512_and_si512(a, _mm512_set1_epi8(0x0f));
}
TESSERA_INLINE I16 HighNibbles(I16 a) { return LowNibbles(_mm512_srli_epi16(a, 4)); }
TESSERA_INLINE I16 Fp4Steps(I16 codes) {
  const __m128i steps =
      _mm_setr_epi8(12, 13, 14, 15, 16, 18, 20, 24, 12, 11, 10, 9, 8, 6, 4, 0);
  return _mm512_shuffle_epi8(_mm512_broadcast_i32x4(steps), codes);
}

// ---- sums of products of bytes ----

constexpr int kDotParts = 1;
constexpr int kInt8XRows = 2;
using DotPart = I16;
using FloatPart = V16;

TESSERA_INLINE void PackGroup(V16 low, V16 high, GroupWords* out) {
  const __m128i first = _mm512_cvtepi32_epi8(_mm512_castps_si512(low));
  const __m128i second = _mm512_cvtepi32_epi8(_mm512_castps_si512(high));
  StoreGroupWords(_mm256_inserti128_si256(_mm256_castsi128_si256(first), second, 1), out);
}

#if defined(__AVX512VNNI__)
TESSERA_INLINE int32_t DotOffset(int32_t first, int32_t second) {
  return -12 * (first + second);
}
TESSERA_INLINE DotPart AddDots(DotPart sum, DotPart a, DotPart b) {
  return _mm512_dpbusd_epi32(sum, a, b);
}
TESSERA_INLINE FloatPart FloatsOf(DotPart sum) { return IntsToFloats(sum); }
#else
// Two sums of 16 bits a lane: weights_avx2.h says why that is enough.
TESSERA_INLINE int32_t DotOffset(int32_t first, int32_t second) {
  return static_cast<int32_t>((static_cast<uint32_t>(-12 * first) & 0xffffU) |
                              static_cast<uint32_t>(-12 * second) << 16);
}
TESSERA_INLINE DotPart AddDots(DotPart sum, DotPart a, DotPart b) {
  return _mm512_add_epi16(sum, _mm512_maddubs_epi16(a, b));
}
TESSERA_INLINE FloatPart FloatsOf(DotPart sum) {
  return IntsToFloats(_mm512_madd_epi16(sum, _mm512_set1_epi16(1)));
}
#endif
TESSERA_INLINE DotPart LoadPart(const void* at, int) { return LoadBytes(at); }
TESSERA_INLINE DotPart PartOf(const I16& v, int) { return v; }
TESSERA_INLINE FloatPart PartOf(const V16& v, int) { return v; }
TESSERA_INLINE void SetPart(V16* v, int, FloatPart value) { *v = value; }
TESSERA_INLINE FloatPart LoadFloatPart(const float* at, int) { return Load(at); }
TESSERA_INLINE FloatPart MulPart(FloatPart a, FloatPart b) { return Mul(a, b); }
TESSERA_INLINE FloatPart FmaPart(FloatPart a, FloatPart b, FloatPart c) {
  return Fma(a, b, c);
}

TESSERA_INLINE V16 DecodeLaneE8M0(const uint8_t* at, int64_t n) {
  const __m128i order =
      _mm_setr_epi8(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
  const __m128i codes = n == 16 ? _mm_loadu_si128(reinterpret_cast<const __m128i*>(at))
                                : _mm_maskz_loadu_epi8(FirstLanes(n), at);
  const auto exist =
      n == 16 ? __mmask16{0xffff}
              : _mm_cmplt_epi8_mask(order, _mm_set1_epi8(static_cast<char>(n)));
  const __m512i lanes = _mm512_cvtepu8_epi32(_mm_shuffle_epi8(codes, order));
  return E8M0Lanes(lanes, exist);
}

}  // namespace
}  // namespace tessera::kernels::cpu::TESSERA_SIMD_ISA

#endif  // TESSERA_KERNELS_CPU_SIMD_WEIGHTS_AVX512_H_
