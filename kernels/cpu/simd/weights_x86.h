// What both weights_avx2.h and weights_avx512.h do with the codes of a group of
// activations; PackGroup in weights_scalar.h says what that is.
#ifndef TESSERA_KERNELS_CPU_SIMD_WEIGHTS_X86_H_
#define TESSERA_KERNELS_CPU_SIMD_WEIGHTS_X86_H_

#include <immintrin.h>

#include "kernels/cpu/simd/simd_ops.h"

namespace tessera::kernels::cpu::TESSERA_SIMD_ISA {
namespace {

// `bytes` in the order of lanes.
TESSERA_INLINE void StoreGroupWords(__m256i bytes, GroupWords* out) {
  const __m256i even_odd =
      _mm256_setr_epi8(0, 2, 4, 6, 1, 3, 5, 7, 8, 10, 12, 14, 9, 11, 13, 15, 0, 2, 4, 6,
                       1, 3, 5, 7, 8, 10, 12, 14, 9, 11, 13, 15);
  const __m256i words = _mm256_shuffle_epi8(bytes, even_odd);
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(out->words), words);
  // Sums of pairs, at most 32 * 127 when all are added.
  const __m256i pairs = _mm256_maddubs_epi16(_mm256_set1_epi8(1), words);
  const __m128i eight =
      _mm_add_epi16(_mm256_castsi256_si128(pairs), _mm256_extracti128_si256(pairs, 1));
  const __m128i four =
      _mm_add_epi16(eight, _mm_shuffle_epi32(eight, _MM_SHUFFLE(1, 0, 3, 2)));
  const __m128i two = _mm_add_epi16(four, _mm_shuffle_epi32(four, 1));
  const auto both = static_cast<uint32_t>(_mm_cvtsi128_si32(two));
  out->first = static_cast<int16_t>(both & 0xffffU);
  out->second = static_cast<int16_t>(both >> 16);
}

}  // namespace
}  // namespace tessera::kernels::cpu::TESSERA_SIMD_ISA

#endif  // TESSERA_KERNELS_CPU_SIMD_WEIGHTS_X86_H_
