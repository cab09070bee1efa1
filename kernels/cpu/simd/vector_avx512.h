// V16, sixteen float lanes, as one zmm register. The same functions with the same bits
// are in vector_avx2.h and, with what each does, in vector_scalar.h.
// For simd_avx512.cc and simd_avx512vnni.cc alone: the latter's compiler flags add dot
// products of bytes (VNNI).
#ifndef TESSERA_KERNELS_CPU_SIMD_VECTOR_AVX512_H_
#define TESSERA_KERNELS_CPU_SIMD_VECTOR_AVX512_H_

#include <immintrin.h>

#include "kernels/cpu/simd/simd_ops.h"

#define TESSERA_INLINE static inline __attribute__((always_inline))
#define TESSERA_APART __attribute__((noinline))

namespace tessera::kernels::cpu::TESSERA_SIMD_ISA {
namespace {

using V16 = __m512;

// Rows of x that share one pass over four weight rows: 16 sums, 4 weights and 1 input in
// flight fit the 32 registers, and hide the latency of the fused multiply-add (4 cycles,
// 2 per cycle).
constexpr int kXRows = 4;

// Latent attention: 12 sums are as many as the multipliers have under way, and a half
// more; two vectors of columns halve what is loaded for a multiply-add.
constexpr int kLatentKeys = 12;
constexpr int kLatentHeads = 8;
constexpr int kLatentColumns = 2;

TESSERA_INLINE __mmask16 FirstLanes(int64_t n) {
  return static_cast<__mmask16>((1U << n) - 1U);
}
TESSERA_INLINE V16 Zero() { return _mm512_setzero_ps(); }
TESSERA_INLINE V16 Set(float value) { return _mm512_set1_ps(value); }
TESSERA_INLINE V16 Load(const float* at) { return _mm512_loadu_ps(at); }
TESSERA_INLINE V16 LoadFirst(const float* at, int64_t n) {
  return _mm512_maskz_loadu_ps(FirstLanes(n), at);
}
TESSERA_INLINE void Store(V16 v, float* at) { _mm512_storeu_ps(at, v); }
TESSERA_INLINE void StoreFirst(V16 v, float* at, int64_t n) {
  _mm512_mask_storeu_ps(at, FirstLanes(n), v);
}
TESSERA_INLINE V16 Add(V16 a, V16 b) { return _mm512_add_ps(a, b); }
TESSERA_INLINE V16 Sub(V16 a, V16 b) { return _mm512_sub_ps(a, b); }
TESSERA_INLINE V16 Mul(V16 a, V16 b) { return _mm512_mul_ps(a, b); }
TESSERA_INLINE V16 Div(V16 a, V16 b) { return _mm512_div_ps(a, b); }
TESSERA_INLINE V16 Fma(V16 a, V16 b, V16 c) { return _mm512_fmadd_ps(a, b, c); }
TESSERA_INLINE V16 Max(V16 a, V16 b) { return _mm512_max_ps(a, b); }
TESSERA_INLINE V16 Min(V16 a, V16 b) { return _mm512_min_ps(a, b); }

TESSERA_INLINE V16 Abs(V16 a) { return _mm512_abs_ps(a); }
TESSERA_INLINE V16 CopySign(V16 a, V16 b) {
  return _mm512_or_ps(a, _mm512_and_ps(b, Set(-0.0F)));
}
TESSERA_INLINE V16 SelectLess(V16 a, V16 b, V16 x, V16 y) {
  return _mm512_mask_blend_ps(_mm512_cmp_ps_mask(a, b, _CMP_LT_OQ), y, x);
}
template <int kBits>
TESSERA_INLINE V16 RoundMantissa(V16 a) {
  const __m512i bits = _mm512_castps_si512(a);
  const __m512i odd =
      _mm512_and_si512(_mm512_srli_epi32(bits, kBits), _mm512_set1_epi32(1));
  const __m512i half = _mm512_set1_epi32((1 << (kBits - 1)) - 1);
  const __m512i sum = _mm512_add_epi32(_mm512_add_epi32(bits, half), odd);
  return _mm512_castsi512_ps(_mm512_and_si512(sum, _mm512_set1_epi32(-(1 << kBits))));
}

template <int kDistance>
TESSERA_INLINE V16 SwapLanes(V16 v) {
  if constexpr (kDistance == 1) {
    return _mm512_permute_ps(v, _MM_SHUFFLE(2, 3, 0, 1));
  } else if constexpr (kDistance == 2) {
    return _mm512_permute_ps(v, _MM_SHUFFLE(1, 0, 3, 2));
  } else if constexpr (kDistance == 4) {
    return _mm512_shuffle_f32x4(v, v, _MM_SHUFFLE(2, 3, 0, 1));
  } else {
    return _mm512_shuffle_f32x4(v, v, _MM_SHUFFLE(1, 0, 3, 2));
  }
}

TESSERA_INLINE __m256 AddHalves(V16 v) {
  return _mm256_add_ps(_mm512_castps512_ps256(v), _mm512_extractf32x8_ps(v, 1));
}
TESSERA_INLINE __m128 AddQuarters(V16 v) {
  const __m256 half = AddHalves(v);
  return _mm_add_ps(_mm256_castps256_ps128(half), _mm256_extractf128_ps(half, 1));
}

TESSERA_INLINE float Reduce(V16 v) {
  const __m128 quarter = AddQuarters(v);
  const __m128 pair = _mm_add_ps(quarter, _mm_movehl_ps(quarter, quarter));
  return _mm_cvtss_f32(_mm_add_ss(pair, _mm_shuffle_ps(pair, pair, 1)));
}
// Reduces four vectors at once into out[0..3]; each sum in the order of Reduce.
TESSERA_INLINE void Reduce4(V16 a, V16 b, V16 c, V16 d, float* out) {
  const __m128 qa = AddQuarters(a);
  const __m128 qb = AddQuarters(b);
  const __m128 qc = AddQuarters(c);
  const __m128 qd = AddQuarters(d);
  const __m128 ab = _mm_add_ps(_mm_movelh_ps(qa, qb), _mm_movehl_ps(qb, qa));
  const __m128 cd = _mm_add_ps(_mm_movelh_ps(qc, qd), _mm_movehl_ps(qd, qc));
  const __m128 even = _mm_shuffle_ps(ab, cd, _MM_SHUFFLE(2, 0, 2, 0));
  const __m128 odd = _mm_shuffle_ps(ab, cd, _MM_SHUFFLE(3, 1, 3, 1));
  _mm_storeu_ps(out, _mm_add_ps(even, odd));
}

// Reduces v[j][o] into out[j][o], sixteen at once: half the work of Reduce4, and the sums
// in the same order. Each step adds two halves of two vectors into one.
TESSERA_INLINE void Reduce16(const V16 (*v)[4], float (*out)[4]) {
  V16 quarters[4];  // of v[0..3][o]: a quarter of four lanes each
#pragma GCC unroll 4
  for (int o = 0; o < 4; ++o) {
    V16 pairs[2];  // lanes l + (l + 8) of v[2 i][o] and v[2 i + 1][o]
#pragma GCC unroll 2
    for (int i = 0; i < 2; ++i) {
      const V16 a = v[2 * i][o];
      const V16 b = v[2 * i + 1][o];
      pairs[i] = _mm512_add_ps(_mm512_shuffle_f32x4(a, b, _MM_SHUFFLE(1, 0, 1, 0)),
                               _mm512_shuffle_f32x4(a, b, _MM_SHUFFLE(3, 2, 3, 2)));
    }
    quarters[o] =
        _mm512_add_ps(_mm512_shuffle_f32x4(pairs[0], pairs[1], _MM_SHUFFLE(2, 0, 2, 0)),
                      _mm512_shuffle_f32x4(pairs[0], pairs[1], _MM_SHUFFLE(3, 1, 3, 1)));
  }
  V16 halves[2];
#pragma GCC unroll 2
  for (int i = 0; i < 2; ++i) {
    const V16 a = quarters[2 * i];
    const V16 b = quarters[2 * i + 1];
    halves[i] = _mm512_add_ps(_mm512_shuffle_ps(a, b, _MM_SHUFFLE(1, 0, 1, 0)),
                              _mm512_shuffle_ps(a, b, _MM_SHUFFLE(3, 2, 3, 2)));
  }
  _mm512_storeu_ps(
      out[0],
      _mm512_add_ps(_mm512_shuffle_ps(halves[0], halves[1], _MM_SHUFFLE(2, 0, 2, 0)),
                    _mm512_shuffle_ps(halves[0], halves[1], _MM_SHUFFLE(3, 1, 3, 1))));
}

// 2^(n/2) twice, whose product is 2^n, from a float whose low bits hold n.
TESSERA_INLINE void PowersOfTwo(V16 shifted, V16 shifter, V16* first, V16* second) {
  const __m512i n =
      _mm512_sub_epi32(_mm512_castps_si512(shifted), _mm512_castps_si512(shifter));
  const __m512i low = _mm512_srai_epi32(n, 1);
  const __m512i bias = _mm512_set1_epi32(127);
  *first = _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_add_epi32(low, bias), 23));
  const __m512i high = _mm512_sub_epi32(n, low);
  *second = _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_add_epi32(high, bias), 23));
}

}  // namespace
}  // namespace tessera::kernels::cpu::TESSERA_SIMD_ISA

#endif  // TESSERA_KERNELS_CPU_SIMD_VECTOR_AVX512_H_
