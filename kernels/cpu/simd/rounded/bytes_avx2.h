// What simd_rounded.h needs of bytes, for AVX2; what each function does is in
// bytes_scalar.h. For simd_avx2.cc alone.
#ifndef TESSERA_KERNELS_CPU_SIMD_ROUNDED_BYTES_AVX2_H_
#define TESSERA_KERNELS_CPU_SIMD_ROUNDED_BYTES_AVX2_H_

#include "kernels/cpu/simd/simd_ops.h"
#include "kernels/cpu/simd/vector_avx2.h"
#include "kernels/cpu/simd/weights_avx2.h"

namespace tessera::kernels::cpu::avx2 {
namespace {

// Sums of integers of three rows of x, weights and an input are 12 of 16 registers; those
// of floats, which are needed once in a group, may lie in L1.
constexpr int kRoundedTiles = 1;
constexpr int kRoundedXRows = 3;

TESSERA_INLINE __m256i MagnitudeBits(__m256 v) {
  return _mm256_and_si256(_mm256_castps_si256(v), _mm256_set1_epi32(0x7fffffff));
}
TESSERA_INLINE uint32_t LargestBits(V16 a, V16 b) {
  const __m256i eight =
      _mm256_max_epu32(_mm256_max_epu32(MagnitudeBits(a.lo), MagnitudeBits(a.hi)),
                       _mm256_max_epu32(MagnitudeBits(b.lo), MagnitudeBits(b.hi)));
  const __m128i four =
      _mm_max_epu32(_mm256_castsi256_si128(eight), _mm256_extracti128_si256(eight, 1));
  const __m128i two =
      _mm_max_epu32(four, _mm_shuffle_epi32(four, _MM_SHUFFLE(1, 0, 3, 2)));
  const __m128i one = _mm_max_epu32(two, _mm_shuffle_epi32(two, 1));
  return static_cast<uint32_t>(_mm_cvtsi128_si32(one));
}
TESSERA_INLINE void StoreLowBytes(V16 v, int8_t* at) {
  const __m256i first =
      _mm256_setr_epi8(0, 4, 8, 12, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, 0, 4,
                       8, 12, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1);
  const __m256i lo = _mm256_shuffle_epi8(_mm256_castps_si256(v.lo), first);
  const __m256i hi = _mm256_shuffle_epi8(_mm256_castps_si256(v.hi), first);
  const __m256i pairs = _mm256_unpacklo_epi32(lo, hi);  // lo, hi, 0, 0 of each half
  const __m128i words = _mm_unpacklo_epi32(_mm256_castsi256_si128(pairs),
                                           _mm256_extracti128_si256(pairs, 1));
  _mm_storeu_si128(reinterpret_cast<__m128i*>(at), words);
}

// Products of bytes with sign would need the sign of one side moved to the other, three
// instructions for ports that have two; those of words need two, so that inputs are kept
// as words, and weights become words once for all rows of x.
constexpr int64_t kRoundedValueBytes = 2;
struct RoundedInput {
  __m256i even;  // inputs 0 and 2 of four, in every lane
  __m256i odd;   // inputs 1 and 3
};
struct RoundedWeights {
  __m256i even_lo;
  __m256i odd_lo;
  __m256i even_hi;
  __m256i odd_hi;
};

// Words of four values in the order of RoundedInput.
TESSERA_INLINE __m256i InputWords(V16 v) {
  const __m256i order =
      _mm256_setr_epi8(0, 1, 8, 9, 4, 5, 12, 13, -1, -1, -1, -1, -1, -1, -1, -1, 0, 1, 8,
                       9, 4, 5, 12, 13, -1, -1, -1, -1, -1, -1, -1, -1);
  const __m256i lo = _mm256_shuffle_epi8(_mm256_castps_si256(v.lo), order);
  const __m256i hi = _mm256_shuffle_epi8(_mm256_castps_si256(v.hi), order);
  return _mm256_permute4x64_epi64(_mm256_unpacklo_epi64(lo, hi), _MM_SHUFFLE(3, 1, 2, 0));
}
TESSERA_INLINE int32_t StoreInputs(V16 low, V16 high, int8_t* at) {
  const __m256i first = InputWords(low);
  const __m256i second = InputWords(high);
  auto* vectors = reinterpret_cast<__m256i*>(at);
  _mm256_storeu_si256(vectors, first);
  _mm256_storeu_si256(vectors + 1, second);
  const __m256i eight =
      _mm256_madd_epi16(_mm256_add_epi16(first, second), _mm256_set1_epi16(1));
  const __m128i four =
      _mm_add_epi32(_mm256_castsi256_si128(eight), _mm256_extracti128_si256(eight, 1));
  const __m128i two =
      _mm_add_epi32(four, _mm_shuffle_epi32(four, _MM_SHUFFLE(1, 0, 3, 2)));
  return _mm_cvtsi128_si32(_mm_add_epi32(two, _mm_shuffle_epi32(two, 1)));
}
TESSERA_INLINE RoundedInput LoadInput(const int8_t* at) {
  int32_t even;
  int32_t odd;
  __builtin_memcpy(&even, at, sizeof(even));
  __builtin_memcpy(&odd, at + sizeof(even), sizeof(odd));
  return {_mm256_set1_epi32(even), _mm256_set1_epi32(odd)};
}
TESSERA_INLINE RoundedWeights LoadWeights(const uint8_t* at) {
  const I16 bytes = LoadBytes(at);
  const __m256i low = _mm256_set1_epi16(0xff);
  return {_mm256_and_si256(bytes.lo, low), _mm256_srli_epi16(bytes.lo, 8),
          _mm256_and_si256(bytes.hi, low), _mm256_srli_epi16(bytes.hi, 8)};
}
TESSERA_INLINE I16 StartDots(int32_t offset) {
  return {_mm256_set1_epi32(offset), _mm256_set1_epi32(offset)};
}
TESSERA_INLINE I16 AddBiasedDots(I16 sum, const RoundedWeights& w,
                                 const RoundedInput& x) {
  sum.lo = InOrder(_mm256_add_epi32(sum.lo, _mm256_madd_epi16(w.even_lo, x.even)));
  sum.hi = InOrder(_mm256_add_epi32(sum.hi, _mm256_madd_epi16(w.even_hi, x.even)));
  sum.lo = InOrder(_mm256_add_epi32(sum.lo, _mm256_madd_epi16(w.odd_lo, x.odd)));
  sum.hi = InOrder(_mm256_add_epi32(sum.hi, _mm256_madd_epi16(w.odd_hi, x.odd)));
  return sum;
}
TESSERA_INLINE V16 DecodeSteps(const uint8_t* at) {
  const __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(at));
  return {_mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu8_epi32(bytes), 23)),
          _mm256_castsi256_ps(
              _mm256_slli_epi32(_mm256_cvtepu8_epi32(_mm_srli_si128(bytes, 8)), 23))};
}

// ---- attention ----

// As above three rows of x; sums of four heads are 8 registers, four rows of a vector of
// columns four more as words, and probabilities two.
constexpr int kScoreRows = 3;
constexpr int kSumHeads = 4;
constexpr int kSumColumns = 1;

TESSERA_INLINE __m256i PackHalf(__m256 a, __m256 b, __m256 c, __m256 d) {
  const __m256i low = _mm256_set1_epi32(0xff);
  const auto byte = [low](__m256 v) {
    return _mm256_and_si256(_mm256_castps_si256(v), low);
  };
  const __m256i first = _mm256_or_si256(byte(a), _mm256_slli_epi32(byte(b), 8));
  const __m256i last =
      _mm256_or_si256(byte(c), _mm256_slli_epi32(_mm256_castps_si256(d), 8));
  return _mm256_or_si256(first, _mm256_slli_epi32(last, 16));
}
TESSERA_INLINE I16 PackLowBytes(const V16* v) {
  return {PackHalf(v[0].lo, v[1].lo, v[2].lo, v[3].lo),
          PackHalf(v[0].hi, v[1].hi, v[2].hi, v[3].hi)};
}
// Products of words, as above: rows become words once for all heads, probabilities are
// kept as words, those of rows 0 and 2 before those of rows 1 and 3.
struct RowValues {
  __m256i even_lo;
  __m256i odd_lo;
  __m256i even_hi;
  __m256i odd_hi;
};
TESSERA_INLINE __m256i EvenBytes(__m256i v) {
  return _mm256_srai_epi16(_mm256_slli_epi16(v, 8), 8);
}
TESSERA_INLINE RowValues LoadRowValues(const uint8_t* at) {
  const I16 bytes = LoadBytes(at);
  return {EvenBytes(bytes.lo), _mm256_srai_epi16(bytes.lo, 8), EvenBytes(bytes.hi),
          _mm256_srai_epi16(bytes.hi, 8)};
}
constexpr int64_t kProbabilityBytes = 128;
using Probabilities = RoundedInput;
TESSERA_INLINE __m256i PairWords(__m256 first, __m256 second) {
  return _mm256_blend_epi16(_mm256_castps_si256(first),
                            _mm256_slli_epi32(_mm256_castps_si256(second), 16), 0xaa);
}
TESSERA_INLINE void StoreProbabilities(const V16* v, uint8_t* at) {
  StoreBytes({PairWords(v[0].lo, v[2].lo), PairWords(v[0].hi, v[2].hi)}, at);
  StoreBytes({PairWords(v[1].lo, v[3].lo), PairWords(v[1].hi, v[3].hi)}, at + 64);
}
TESSERA_INLINE Probabilities LoadProbabilities(const uint8_t* at, int64_t head) {
  int32_t even;
  int32_t odd;
  __builtin_memcpy(&even, at + 4 * head, sizeof(even));
  __builtin_memcpy(&odd, at + 64 + 4 * head, sizeof(odd));
  return {_mm256_set1_epi32(even), _mm256_set1_epi32(odd)};
}
TESSERA_INLINE I16 AddRowDots(I16 sum, const RowValues& v, const Probabilities& p) {
  return AddBiasedDots(sum, {v.even_lo, v.odd_lo, v.even_hi, v.odd_hi}, p);
}

}  // namespace
}  // namespace tessera::kernels::cpu::avx2

#endif  // TESSERA_KERNELS_CPU_SIMD_ROUNDED_BYTES_AVX2_H_
