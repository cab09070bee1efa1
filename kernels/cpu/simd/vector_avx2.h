// V16, sixteen float lanes, as two ymm registers. The same functions with the same bits
// are in vector_avx512.h and, with what each does, in vector_scalar.h. For simd_avx2.cc
// alone.
#ifndef TESSERA_KERNELS_CPU_SIMD_VECTOR_AVX2_H_
#define TESSERA_KERNELS_CPU_SIMD_VECTOR_AVX2_H_

#include <immintrin.h>

#include "kernels/cpu/simd/simd_ops.h"

#define TESSERA_INLINE static inline __attribute__((always_inline))
#define TESSERA_APART __attribute__((noinline))

namespace tessera::kernels::cpu::avx2 {
namespace {

struct V16 {
  __m256 lo;  // lanes 0-7
  __m256 hi;  // lanes 8-15
};

// Four weight rows of one row of x are 8 registers of sums; a second row of x would fill
// all 16.
constexpr int kXRows = 1;

// Latent attention: scores of six cached rows, or sums of six heads, are 12 registers;
// the rest hold a vector of the other side and a broadcast value.
constexpr int kLatentKeys = 6;
constexpr int kLatentHeads = 6;
constexpr int kLatentColumns = 1;

// Masks of maskload: all bits set in the first n of 8 lanes, n outside 0..8 clamped.
TESSERA_INLINE __m256i FirstLanes(int64_t n) {
  const __m256i lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
  return _mm256_cmpgt_epi32(_mm256_set1_epi32(static_cast<int32_t>(n)), lane);
}
TESSERA_INLINE V16 Zero() { return {_mm256_setzero_ps(), _mm256_setzero_ps()}; }
TESSERA_INLINE V16 Set(float value) {
  return {_mm256_set1_ps(value), _mm256_set1_ps(value)};
}
TESSERA_INLINE V16 Load(const float* at) {
  return {_mm256_loadu_ps(at), _mm256_loadu_ps(at + 8)};
}
TESSERA_INLINE V16 LoadFirst(const float* at, int64_t n) {
  return {_mm256_maskload_ps(at, FirstLanes(n)),
          _mm256_maskload_ps(at + 8, FirstLanes(n - 8))};
}
TESSERA_INLINE void Store(V16 v, float* at) {
  _mm256_storeu_ps(at, v.lo);
  _mm256_storeu_ps(at + 8, v.hi);
}
TESSERA_INLINE void StoreFirst(V16 v, float* at, int64_t n) {
  _mm256_maskstore_ps(at, FirstLanes(n), v.lo);
  _mm256_maskstore_ps(at + 8, FirstLanes(n - 8), v.hi);
}
TESSERA_INLINE V16 Add(V16 a, V16 b) {
  return {_mm256_add_ps(a.lo, b.lo), _mm256_add_ps(a.hi, b.hi)};
}
TESSERA_INLINE V16 Sub(V16 a, V16 b) {
  return {_mm256_sub_ps(a.lo, b.lo), _mm256_sub_ps(a.hi, b.hi)};
}
TESSERA_INLINE V16 Mul(V16 a, V16 b) {
  return {_mm256_mul_ps(a.lo, b.lo), _mm256_mul_ps(a.hi, b.hi)};
}
TESSERA_INLINE V16 Div(V16 a, V16 b) {
  return {_mm256_div_ps(a.lo, b.lo), _mm256_div_ps(a.hi, b.hi)};
}
TESSERA_INLINE V16 Fma(V16 a, V16 b, V16 c) {
  return {_mm256_fmadd_ps(a.lo, b.lo, c.lo), _mm256_fmadd_ps(a.hi, b.hi, c.hi)};
}
TESSERA_INLINE V16 Max(V16 a, V16 b) {
  return {_mm256_max_ps(a.lo, b.lo), _mm256_max_ps(a.hi, b.hi)};
}
TESSERA_INLINE V16 Min(V16 a, V16 b) {
  return {_mm256_min_ps(a.lo, b.lo), _mm256_min_ps(a.hi, b.hi)};
}

TESSERA_INLINE V16 Abs(V16 a) {
  const __m256 sign = _mm256_set1_ps(-0.0F);
  return {_mm256_andnot_ps(sign, a.lo), _mm256_andnot_ps(sign, a.hi)};
}
TESSERA_INLINE V16 CopySign(V16 a, V16 b) {
  const __m256 sign = _mm256_set1_ps(-0.0F);
  return {_mm256_or_ps(a.lo, _mm256_and_ps(b.lo, sign)),
          _mm256_or_ps(a.hi, _mm256_and_ps(b.hi, sign))};
}
TESSERA_INLINE V16 SelectLess(V16 a, V16 b, V16 x, V16 y) {
  return {_mm256_blendv_ps(y.lo, x.lo, _mm256_cmp_ps(a.lo, b.lo, _CMP_LT_OQ)),
          _mm256_blendv_ps(y.hi, x.hi, _mm256_cmp_ps(a.hi, b.hi, _CMP_LT_OQ))};
}
template <int kBits>
TESSERA_INLINE __m256 RoundHalfMantissa(__m256 a) {
  const __m256i bits = _mm256_castps_si256(a);
  const __m256i odd =
      _mm256_and_si256(_mm256_srli_epi32(bits, kBits), _mm256_set1_epi32(1));
  const __m256i half = _mm256_set1_epi32((1 << (kBits - 1)) - 1);
  const __m256i sum = _mm256_add_epi32(_mm256_add_epi32(bits, half), odd);
  return _mm256_castsi256_ps(_mm256_and_si256(sum, _mm256_set1_epi32(-(1 << kBits))));
}
template <int kBits>
TESSERA_INLINE V16 RoundMantissa(V16 a) {
  return {RoundHalfMantissa<kBits>(a.lo), RoundHalfMantissa<kBits>(a.hi)};
}

template <int kDistance>
TESSERA_INLINE __m256 SwapLanesOfHalf(__m256 v) {
  if constexpr (kDistance == 1) {
    return _mm256_permute_ps(v, _MM_SHUFFLE(2, 3, 0, 1));
  } else if constexpr (kDistance == 2) {
    return _mm256_permute_ps(v, _MM_SHUFFLE(1, 0, 3, 2));
  } else {
    return _mm256_permute2f128_ps(v, v, 1);
  }
}
template <int kDistance>
TESSERA_INLINE V16 SwapLanes(V16 v) {
  if constexpr (kDistance == 8) {
    return {v.hi, v.lo};
  } else {
    return {SwapLanesOfHalf<kDistance>(v.lo), SwapLanesOfHalf<kDistance>(v.hi)};
  }
}

TESSERA_INLINE __m128 AddQuarters(V16 v) {
  const __m256 half = _mm256_add_ps(v.lo, v.hi);
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

// Reduces v[j][o] into out[j][o], sixteen at once.
TESSERA_INLINE void Reduce16(const V16 (*v)[4], float (*out)[4]) {
  for (int j = 0; j < 4; ++j) {
    Reduce4(v[j][0], v[j][1], v[j][2], v[j][3], out[j]);
  }
}

TESSERA_INLINE void HalfPowersOfTwo(__m256 shifted, __m256 shifter, __m256* first,
                                    __m256* second) {
  const __m256i n =
      _mm256_sub_epi32(_mm256_castps_si256(shifted), _mm256_castps_si256(shifter));
  const __m256i low = _mm256_srai_epi32(n, 1);
  const __m256i bias = _mm256_set1_epi32(127);
  *first = _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(low, bias), 23));
  const __m256i high = _mm256_sub_epi32(n, low);
  *second = _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(high, bias), 23));
}
TESSERA_INLINE void PowersOfTwo(V16 shifted, V16 shifter, V16* first, V16* second) {
  HalfPowersOfTwo(shifted.lo, shifter.lo, &first->lo, &second->lo);
  HalfPowersOfTwo(shifted.hi, shifter.hi, &first->hi, &second->hi);
}

}  // namespace
}  // namespace tessera::kernels::cpu::avx2

#endif  // TESSERA_KERNELS_CPU_SIMD_VECTOR_AVX2_H_
