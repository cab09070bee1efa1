// Stored weights as lanes, and integer lanes, with AVX2 and F16C; weights_scalar.h says
// what each function does. For simd_avx2.cc alone, after vector_avx2.h.
#ifndef TESSERA_KERNELS_CPU_SIMD_WEIGHTS_AVX2_H_
#define TESSERA_KERNELS_CPU_SIMD_WEIGHTS_AVX2_H_

#include "kernels/cpu/simd/vector_avx2.h"
#include "kernels/cpu/simd/weights_x86.h"

namespace tessera::kernels::cpu::avx2 {
namespace {

TESSERA_INLINE __m256 Bf16ToFloat(__m128i codes) {
  return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(codes), 16));
}
TESSERA_INLINE V16 DecodeBf16(const uint8_t* at) {
  const auto* codes = reinterpret_cast<const __m128i*>(at);
  return {Bf16ToFloat(_mm_loadu_si128(codes)), Bf16ToFloat(_mm_loadu_si128(codes + 1))};
}
TESSERA_INLINE V16 HalvesToFloat(__m256i half) {
  return {_mm256_cvtph_ps(_mm256_castsi256_si128(half)),
          _mm256_cvtph_ps(_mm256_extracti128_si256(half, 1))};
}
// e4m3 has the bits of a half with a smaller exponent bias: move them there, convert,
// times 2^8.
TESSERA_INLINE V16 DecodeF8(const uint8_t* at) {
  const __m128i codes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(at));
  const __m256i wide = _mm256_cvtepu8_epi16(codes);
  const __m256i magnitude = _mm256_and_si256(wide, _mm256_set1_epi16(0x7f));
  const __m256i sign = _mm256_and_si256(wide, _mm256_set1_epi16(0x80));
  const __m256i nan = _mm256_cmpeq_epi16(magnitude, _mm256_set1_epi16(0x7f));
  __m256i half =
      _mm256_or_si256(_mm256_slli_epi16(magnitude, 7), _mm256_slli_epi16(sign, 8));
  half = _mm256_blendv_epi8(half, _mm256_set1_epi16(0x7e00), nan);
  return Mul(HalvesToFloat(half), Set(256.0F));
}
// The bits of e4m3 moved into a half: the sign-extended code carries its sign along.
TESSERA_INLINE void DecodeFiniteF8(const uint8_t* at, V16* out) {
#pragma GCC unroll 2
  for (int half = 0; half < 2; ++half) {
    const __m256i wide = _mm256_cvtepi8_epi16(
        _mm_loadu_si128(reinterpret_cast<const __m128i*>(at + 16 * half)));
    out[half] = HalvesToFloat(
        _mm256_and_si256(_mm256_slli_epi16(wide, 7), _mm256_set1_epi16(-0x4080)));
  }
}
TESSERA_INLINE __m256 HalfE8M0(__m128i bytes) {
  const __m256i codes = _mm256_cvtepu8_epi32(bytes);
  const __m256i zero = _mm256_cmpeq_epi32(codes, _mm256_setzero_si256());
  const __m256i nan = _mm256_cmpeq_epi32(codes, _mm256_set1_epi32(255));
  __m256i bits = _mm256_slli_epi32(codes, 23);
  bits = _mm256_blendv_epi8(bits, _mm256_set1_epi32(0x00400000), zero);
  bits = _mm256_blendv_epi8(bits, _mm256_set1_epi32(0x7fc00000), nan);
  return _mm256_castsi256_ps(bits);
}
TESSERA_INLINE V16 DecodeFirstE8M0(const uint8_t* at, int64_t n) {
  uint8_t first[16] = {};
  __builtin_memcpy(first, at, static_cast<uint64_t>(n));
  const __m128i codes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(first));
  const __m256 zero = _mm256_setzero_ps();
  return {_mm256_blendv_ps(zero, HalfE8M0(codes), _mm256_castsi256_ps(FirstLanes(n))),
          _mm256_blendv_ps(zero, HalfE8M0(_mm_srli_si128(codes, 8)),
                           _mm256_castsi256_ps(FirstLanes(n - 8)))};
}
// The halves that e2m1 codes stand for have a low byte of zero: look the high byte up.
TESSERA_INLINE V16 DecodeFp4(const uint8_t* at) {
  const __m128i pairs = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(at));
  const __m128i nibble = _mm_set1_epi8(15);
  const __m128i low = _mm_and_si128(pairs, nibble);
  const __m128i high = _mm_and_si128(_mm_srli_epi16(pairs, 4), nibble);
  const __m128i table = _mm_setr_epi8(0, 0x38, 0x3c, 0x3e, 0x40, 0x42, 0x44, 0x46, -128,
                                      -72, -68, -66, -64, -62, -60, -58);
  const __m128i bytes = _mm_shuffle_epi8(table, _mm_unpacklo_epi8(low, high));
  return HalvesToFloat(_mm256_slli_epi16(_mm256_cvtepu8_epi16(bytes), 8));
}

TESSERA_INLINE V16 Fp4Products(float scale) { return Set(scale); }
TESSERA_INLINE void LookUpFp4(const uint8_t* at, V16 products, V16* out) {
  out[0] = Mul(DecodeFp4(at), products);
  out[1] = Mul(DecodeFp4(at + 8), products);
}
TESSERA_INLINE V16 ToFp4Order(V16 v) { return v; }
TESSERA_INLINE V16 FromFp4Order(V16 v) { return v; }

// ---- integers ----

struct I16 {
  __m256i lo;  // words 0-7
  __m256i hi;  // words 8-15
};

TESSERA_INLINE I16 LoadBytes(const void* at) {
  const auto* vectors = static_cast<const __m256i*>(at);
  return {_mm256_loadu_si256(vectors), _mm256_loadu_si256(vectors + 1)};
}
TESSERA_INLINE I16 LoadFirstBytes(const uint8_t* at, int64_t n) {
  const auto* words = reinterpret_cast<const int32_t*>(at);
  return {_mm256_maskload_epi32(words, FirstLanes(n / 4)),
          _mm256_maskload_epi32(words + 8, FirstLanes(n / 4 - 8))};
}
TESSERA_INLINE void StoreBytes(I16 v, uint8_t* at) {
  auto* vectors = reinterpret_cast<__m256i*>(at);
  _mm256_storeu_si256(vectors, v.lo);
  _mm256_storeu_si256(vectors + 1, v.hi);
}
TESSERA_INLINE I16 LoadInts(const int32_t* at) { return LoadBytes(at); }
TESSERA_INLINE I16 ZeroInts() { return {_mm256_setzero_si256(), _mm256_setzero_si256()}; }
TESSERA_INLINE I16 LoadTwice(const uint8_t* at) {
  const __m256i bytes = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(at));
  return {bytes, bytes};
}
TESSERA_INLINE I16 LargerF8(I16 a, I16 codes) {
  const __m256i magnitude = _mm256_set1_epi8(0x7f);
  return {_mm256_max_epu8(a.lo, _mm256_and_si256(codes.lo, magnitude)),
          _mm256_max_epu8(a.hi, _mm256_and_si256(codes.hi, magnitude))};
}
TESSERA_INLINE bool HoldsNanF8(I16 a) {
  return _mm256_movemask_epi8(
             _mm256_cmpeq_epi8(_mm256_max_epu8(a.lo, a.hi), _mm256_set1_epi8(0x7f))) != 0;
}
// Keeps a sum of integers as it is written: gcc would add many products up as a tree,
// for which there are no registers.
TESSERA_INLINE __m256i InOrder(__m256i sum) {
  asm("" : "+x"(sum));
  return sum;
}
TESSERA_INLINE I16 AddInts(I16 a, I16 b) {
  return {_mm256_add_epi32(a.lo, b.lo), _mm256_add_epi32(a.hi, b.hi)};
}
TESSERA_INLINE V16 IntsToFloats(I16 a) {
  return {_mm256_cvtepi32_ps(a.lo), _mm256_cvtepi32_ps(a.hi)};
}
TESSERA_INLINE void TransposeHalves(__m256i* a, __m256i* b, __m256i* c, __m256i* d) {
  const __m256i low01 = _mm256_unpacklo_epi32(*a, *b);
  const __m256i high01 = _mm256_unpackhi_epi32(*a, *b);
  const __m256i low23 = _mm256_unpacklo_epi32(*c, *d);
  const __m256i high23 = _mm256_unpackhi_epi32(*c, *d);
  *a = _mm256_unpacklo_epi64(low01, low23);
  *b = _mm256_unpackhi_epi64(low01, low23);
  *c = _mm256_unpacklo_epi64(high01, high23);
  *d = _mm256_unpackhi_epi64(high01, high23);
}
TESSERA_INLINE void TransposeWords(I16* v) {
  TransposeHalves(&v[0].lo, &v[1].lo, &v[2].lo, &v[3].lo);
  TransposeHalves(&v[0].hi, &v[1].hi, &v[2].hi, &v[3].hi);
}
TESSERA_INLINE void TransposePieces(I16* v) {
  const I16 old[4] = {v[0], v[1], v[2], v[3]};
  v[0] = {_mm256_permute2x128_si256(old[0].lo, old[1].lo, 0x20),
          _mm256_permute2x128_si256(old[2].lo, old[3].lo, 0x20)};
  v[1] = {_mm256_permute2x128_si256(old[0].lo, old[1].lo, 0x31),
          _mm256_permute2x128_si256(old[2].lo, old[3].lo, 0x31)};
  v[2] = {_mm256_permute2x128_si256(old[0].hi, old[1].hi, 0x20),
          _mm256_permute2x128_si256(old[2].hi, old[3].hi, 0x20)};
  v[3] = {_mm256_permute2x128_si256(old[0].hi, old[1].hi, 0x31),
          _mm256_permute2x128_si256(old[2].hi, old[3].hi, 0x31)};
}
TESSERA_INLINE I16 LowNibbles(I16 a) {
  const __m256i mask = _mm256_set1_epi8(0x0f);
  return {_mm256_and_si256(a.lo, mask), _mm256_and_si256(a.hi, mask)};
}
TESSERA_INLINE I16 HighNibbles(I16 a) {
  return LowNibbles({_mm256_srli_epi16(a.lo, 4), _mm256_srli_epi16(a.hi, 4)});
}
TESSERA_INLINE I16 Fp4Steps(I16 codes) {
  const __m256i steps = _mm256_broadcastsi128_si256(
      _mm_setr_epi8(12, 13, 14, 15, 16, 18, 20, 24, 12, 11, 10, 9, 8, 6, 4, 0));
  return {_mm256_shuffle_epi8(steps, codes.lo), _mm256_shuffle_epi8(steps, codes.hi)};
}

// ---- sums of products of bytes: eight lanes at a time, in two sums of 16 bits each ----
//
// Two products are at most 2 * 24 * 127, which fits. The sum of a whole group need not,
// but 12 times the codes of x off again it is at most 16 * 12 * 127, which does; sums of
// 16 bits are exact modulo 2^16 all along.

constexpr int kDotParts = 2;
constexpr int kInt8XRows = 2;
using DotPart = __m256i;
using FloatPart = __m256;

TESSERA_INLINE __m256i LowWords(__m256 v) {
  return _mm256_srai_epi32(_mm256_slli_epi32(_mm256_castps_si256(v), 16), 16);
}
TESSERA_INLINE void PackGroup(V16 low, V16 high, GroupWords* out) {
  const __m256i first = _mm256_packs_epi32(LowWords(low.lo), LowWords(low.hi));
  const __m256i second = _mm256_packs_epi32(LowWords(high.lo), LowWords(high.hi));
  // Words of four lanes: 0, 2, 4, 6 in the low half, 1, 3, 5, 7 in the high one.
  const __m256i bytes = _mm256_packs_epi16(first, second);
  StoreGroupWords(
      _mm256_permutevar8x32_epi32(bytes, _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7)), out);
}
TESSERA_INLINE int32_t DotOffset(int32_t first, int32_t second) {
  return static_cast<int32_t>((static_cast<uint32_t>(-12 * first) & 0xffffU) |
                              static_cast<uint32_t>(-12 * second) << 16);
}
TESSERA_INLINE DotPart LoadPart(const void* at, int part) {
  return _mm256_loadu_si256(static_cast<const __m256i*>(at) + part);
}
TESSERA_INLINE DotPart PartOf(const I16& v, int part) { return part == 0 ? v.lo : v.hi; }
TESSERA_INLINE FloatPart PartOf(const V16& v, int part) {
  return part == 0 ? v.lo : v.hi;
}
TESSERA_INLINE void SetPart(V16* v, int part, FloatPart value) {
  (part == 0 ? v->lo : v->hi) = value;
}
TESSERA_INLINE FloatPart LoadFloatPart(const float* at, int part) {
  return _mm256_loadu_ps(at + 8 * part);
}
TESSERA_INLINE DotPart AddDots(DotPart sum, DotPart a, DotPart b) {
  return InOrder(_mm256_add_epi16(sum, _mm256_maddubs_epi16(a, b)));
}
TESSERA_INLINE FloatPart FloatsOf(DotPart sum) {
  return _mm256_cvtepi32_ps(_mm256_madd_epi16(sum, _mm256_set1_epi16(1)));
}
TESSERA_INLINE FloatPart MulPart(FloatPart a, FloatPart b) { return _mm256_mul_ps(a, b); }
TESSERA_INLINE FloatPart FmaPart(FloatPart a, FloatPart b, FloatPart c) {
  return _mm256_fmadd_ps(a, b, c);
}

TESSERA_INLINE V16 DecodeLaneE8M0(const uint8_t* at, int64_t n) {
  const __m128i order =
      _mm_setr_epi8(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
  __m128i codes;
  if (n == 16) {
    codes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(at));
  } else {  // ones: of groups that do not exist, whose products are zero
    uint8_t first[16];
    for (int64_t i = 0; i < 16; ++i) {
      first[i] = i < n ? at[i] : 127;
    }
    codes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(first));
  }
  const __m128i lanes = _mm_shuffle_epi8(codes, order);
  return {HalfE8M0(lanes), HalfE8M0(_mm_srli_si128(lanes, 8))};
}

}  // namespace
}  // namespace tessera::kernels::cpu::avx2

#endif  // TESSERA_KERNELS_CPU_SIMD_WEIGHTS_AVX2_H_
