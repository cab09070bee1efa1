// What simd_rounded.h needs of bytes, for AVX-512 with and without VNNI; what each
// function does is in bytes_scalar.h. For simd_avx512.cc and simd_avx512vnni.cc alone.
#ifndef TESSERA_KERNELS_CPU_SIMD_ROUNDED_BYTES_AVX512_H_
#define TESSERA_KERNELS_CPU_SIMD_ROUNDED_BYTES_AVX512_H_

#include "kernels/cpu/simd/simd_ops.h"
#include "kernels/cpu/simd/vector_avx512.h"
#include "kernels/cpu/simd/weights_avx512.h"

namespace tessera::kernels::cpu::TESSERA_SIMD_ISA {
namespace {

// 12 sums of integers, 12 of floats, two of weights, one of x: 27 of 32 registers.
constexpr int kRoundedTiles = 2;
constexpr int kRoundedXRows = 6;

TESSERA_INLINE uint32_t LargestBits(V16 a, V16 b) {
  const __m512i largest =
      _mm512_max_epu32(_mm512_castps_si512(Abs(a)), _mm512_castps_si512(Abs(b)));
  return _mm512_reduce_max_epu32(largest);
}
TESSERA_INLINE void StoreLowBytes(V16 v, int8_t* at) {
  _mm_storeu_si128(reinterpret_cast<__m128i*>(at),
                   _mm512_cvtepi32_epi8(_mm512_castps_si512(v)));
}
TESSERA_INLINE int32_t SumOf32(__m256i bytes) {
  const __m256i raised = _mm256_xor_si256(bytes, _mm256_set1_epi8(-128));
  const __m256i four = _mm256_sad_epu8(raised, _mm256_setzero_si256());
  const __m128i two =
      _mm_add_epi64(_mm256_castsi256_si128(four), _mm256_extracti128_si256(four, 1));
  return _mm_cvtsi128_si32(_mm_add_epi64(two, _mm_unpackhi_epi64(two, two))) - 32 * 128;
}

constexpr int64_t kRoundedValueBytes = 1;
using RoundedInput = I16;
using RoundedWeights = I16;

TESSERA_INLINE int32_t StoreInputs(V16 low, V16 high, int8_t* at) {
  // Added up in registers: what two stores wrote one load would have to wait for.
  const __m128i first = _mm512_cvtepi32_epi8(_mm512_castps_si512(low));
  const __m128i second = _mm512_cvtepi32_epi8(_mm512_castps_si512(high));
  const __m256i bytes = _mm256_inserti128_si256(_mm256_castsi128_si256(first), second, 1);
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(at), bytes);
  return SumOf32(bytes);
}
TESSERA_INLINE RoundedInput LoadInput(const int8_t* at) {
  int32_t word;
  __builtin_memcpy(&word, at, sizeof(word));
  return _mm512_set1_epi32(word);
}
TESSERA_INLINE RoundedWeights LoadWeights(const uint8_t* at) { return LoadBytes(at); }
#if defined(__AVX512VNNI__)
TESSERA_INLINE I16 StartDots(int32_t offset) { return _mm512_set1_epi32(offset); }
TESSERA_INLINE I16 AddBiasedDots(I16 sum, I16 w, I16 x) {
  return _mm512_dpbusd_epi32(sum, w, x);
}
#else
TESSERA_INLINE I16 StartDots(int32_t) { return ZeroInts(); }
// Magnitudes of codes times x with their signs: two products fit 16 bits.
TESSERA_INLINE I16 AddBiasedDots(I16 sum, I16 w, I16 x) {
  const __m512i codes = _mm512_xor_si512(w, _mm512_set1_epi8(-128));
  const __m512i with_sign =
      _mm512_mask_sub_epi8(x, _mm512_movepi8_mask(codes), _mm512_setzero_si512(), x);
  const __m512i pairs = _mm512_maddubs_epi16(_mm512_abs_epi8(codes), with_sign);
  return AddInts(sum, _mm512_madd_epi16(pairs, _mm512_set1_epi16(1)));
}
#endif
TESSERA_INLINE V16 DecodeSteps(const uint8_t* at) {
  const __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(at));
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu8_epi32(bytes), 23));
}

// ---- attention ----

// 12 sums of integers and 12 of floats; sums of 16 of the 32 registers, with those of
// floats, which are needed once for 128 dot products, partly in L1.
constexpr int kScoreRows = 12;
constexpr int kSumHeads = 8;
constexpr int kSumColumns = 2;

// first & mask | second & ~mask.
TESSERA_INLINE __m512i Select(__m512i mask, __m512i first, __m512i second) {
  return _mm512_ternarylogic_epi32(mask, first, second, 0xca);
}
TESSERA_INLINE __m512i PairBytes(V16 first, V16 second) {
  return Select(_mm512_set1_epi32(0xff), _mm512_castps_si512(first),
                _mm512_slli_epi32(_mm512_castps_si512(second), 8));
}
TESSERA_INLINE I16 PackLowBytes(const V16* v) {
  return Select(_mm512_set1_epi32(0xffff), PairBytes(v[0], v[1]),
                _mm512_slli_epi32(PairBytes(v[2], v[3]), 16));
}
#if defined(__AVX512VNNI__)
using RowValues = I16;
TESSERA_INLINE RowValues LoadRowValues(const uint8_t* at) { return LoadBytes(at); }
constexpr int64_t kProbabilityBytes = 64;
using Probabilities = I16;
TESSERA_INLINE void StoreProbabilities(const V16* v, uint8_t* at) {
  StoreBytes(PackLowBytes(v), at);
}
TESSERA_INLINE Probabilities LoadProbabilities(const uint8_t* at, int64_t head) {
  int32_t word;
  __builtin_memcpy(&word, at + 4 * head, sizeof(word));
  return _mm512_set1_epi32(word);
}
// Spelled out: of the intrinsic gcc makes two moves for each sum of a loop.
TESSERA_INLINE I16 AddRowDots(I16 sum, RowValues v, Probabilities p) {
  asm("vpdpbusd %2, %1, %0" : "+v"(sum) : "v"(p), "v"(v));
  return sum;
}
#else
// Two products of 255 x 127 do not fit 16 bits: words, as on AVX2.
struct RowValues {
  __m512i even;
  __m512i odd;
};
TESSERA_INLINE RowValues LoadRowValues(const uint8_t* at) {
  const __m512i bytes = LoadBytes(at);
  return {_mm512_srai_epi16(_mm512_slli_epi16(bytes, 8), 8), _mm512_srai_epi16(bytes, 8)};
}
constexpr int64_t kProbabilityBytes = 128;
using Probabilities = RowValues;
TESSERA_INLINE __m512i PairWords(V16 first, V16 second) {
  return Select(_mm512_set1_epi32(0xffff), _mm512_castps_si512(first),
                _mm512_slli_epi32(_mm512_castps_si512(second), 16));
}
TESSERA_INLINE void StoreProbabilities(const V16* v, uint8_t* at) {
  StoreBytes(PairWords(v[0], v[2]), at);
  StoreBytes(PairWords(v[1], v[3]), at + 64);
}
TESSERA_INLINE Probabilities LoadProbabilities(const uint8_t* at, int64_t head) {
  int32_t even;
  int32_t odd;
  __builtin_memcpy(&even, at + 4 * head, sizeof(even));
  __builtin_memcpy(&odd, at + 64 + 4 * head, sizeof(odd));
  return {_mm512_set1_epi32(even), _mm512_set1_epi32(odd)};
}
TESSERA_INLINE I16 AddRowDots(I16 sum, RowValues v, Probabilities p) {
  sum = AddInts(sum, _mm512_madd_epi16(v.even, p.even));
  return AddInts(sum, _mm512_madd_epi16(v.odd, p.odd));
}
#endif

}  // namespace
}  // namespace tessera::kernels::cpu::TESSERA_SIMD_ISA

#endif  // TESSERA_KERNELS_CPU_SIMD_ROUNDED_BYTES_AVX512_H_
