// V16, sixteen float lanes, as one zmm register. The same functions with the same bits
// are in vector_avx2.h and, with what each does, in vector_scalar.h and weights_scalar.h.
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
TESSERA_INLINE I16 LowNibbles(I16 a) {
  return _mm512_and_si512(a, _mm512_set1_epi8(0x0f));
}
TESSERA_INLINE I16 HighNibbles(I16 a) { return LowNibbles(_mm512_srli_epi16(a, 4)); }
TESSERA_INLINE I16 Fp4Steps(I16 codes) {
  const __m128i steps =
      _mm_setr_epi8(12, 13, 14, 15, 16, 18, 20, 24, 12, 11, 10, 9, 8, 6, 4, 0);
  return _mm512_shuffle_epi8(_mm512_broadcast_i32x4(steps), codes);
}
TESSERA_INLINE I16 AddDots(I16 sum, I16 a, I16 b) {
#if defined(__AVX512VNNI__)
  return _mm512_dpbusd_epi32(sum, a, b);
#else
  const I16 pairs = _mm512_maddubs_epi16(a, b);
  return AddInts(sum, _mm512_madd_epi16(pairs, _mm512_set1_epi16(1)));
#endif
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

#endif  // TESSERA_KERNELS_CPU_SIMD_VECTOR_AVX512_H_
