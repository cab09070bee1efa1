// What simd_rounded.h needs of bytes, for AVX2; what each function does is in
// bytes_scalar.h. For simd_avx2.cc alone.
#ifndef TESSERA_KERNELS_CPU_SIMD_ROUNDED_BYTES_AVX2_H_
#define TESSERA_KERNELS_CPU_SIMD_ROUNDED_BYTES_AVX2_H_

#include "kernels/cpu/simd/simd_ops.h"
#include "kernels/cpu/simd/vector_avx2.h"
#include "kernels/cpu/simd/weights_avx2.h"

namespace tessera::kernels::cpu::avx2 {
namespace {

// Sums of integers and of floats of two rows of x are 8 of 16 registers.
constexpr int kRoundedTiles = 1;
constexpr int kRoundedXRows = 2;

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
TESSERA_INLINE int32_t SumOf32(const int8_t* at) {
  const __m256i bytes = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(at));
  const __m256i raised = _mm256_xor_si256(bytes, _mm256_set1_epi8(-128));
  const __m256i four = _mm256_sad_epu8(raised, _mm256_setzero_si256());
  const __m128i two =
      _mm_add_epi64(_mm256_castsi256_si128(four), _mm256_extracti128_si256(four, 1));
  return _mm_cvtsi128_si32(_mm_add_epi64(two, _mm_unpackhi_epi64(two, two))) - 32 * 128;
}
TESSERA_INLINE I16 BroadcastWord(const int8_t* at) {
  int32_t word;
  __builtin_memcpy(&word, at, sizeof(word));
  return {_mm256_set1_epi32(word), _mm256_set1_epi32(word)};
}
TESSERA_INLINE I16 StartDots(int32_t) { return ZeroInts(); }
// Magnitudes of codes times x with their signs: two products fit 16 bits.
TESSERA_INLINE __m256i BiasedDots(__m256i w, __m256i x) {
  const __m256i codes = _mm256_xor_si256(w, _mm256_set1_epi8(-128));
  return _mm256_madd_epi16(
      _mm256_maddubs_epi16(_mm256_abs_epi8(codes), _mm256_sign_epi8(x, codes)),
      _mm256_set1_epi16(1));
}
TESSERA_INLINE I16 AddBiasedDots(I16 sum, I16 w, I16 x) {
  return AddInts(sum, {BiasedDots(w.lo, x.lo), BiasedDots(w.hi, x.hi)});
}
TESSERA_INLINE V16 DecodeSteps(const uint8_t* at) {
  const __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(at));
  return {_mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu8_epi32(bytes), 23)),
          _mm256_castsi256_ps(
              _mm256_slli_epi32(_mm256_cvtepu8_epi32(_mm_srli_si128(bytes, 8)), 23))};
}

}  // namespace
}  // namespace tessera::kernels::cpu::avx2

#endif  // TESSERA_KERNELS_CPU_SIMD_ROUNDED_BYTES_AVX2_H_
