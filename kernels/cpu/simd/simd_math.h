// Functions of V16 that are written once for all instruction sets: exp and what is made
// of it, and loops over rows. Included through simd_table.h only, after one vector_*.h.
#ifndef TESSERA_KERNELS_CPU_SIMD_SIMD_MATH_H_
#define TESSERA_KERNELS_CPU_SIMD_SIMD_MATH_H_

namespace tessera::kernels::cpu::TESSERA_SIMD_ISA {
namespace {

// e^x: x = n ln 2 + r with |r| <= ln 2 / 2, and the Taylor series of e^r to r^7, whose
// rest is below 2^-27. About one unit in the last place; 0 below -104, infinity
// above 88.73, NaN of NaN.
TESSERA_INLINE V16 Exp(V16 x) {
  // The bounds come first: Max and Min return their second operand if one is NaN.
  x = Min(Set(89.0F), Max(Set(-104.0F), x));
  const V16 shifter = Set(0x1.8p23F);  // adding it rounds to an integer
  const V16 shifted = Fma(x, Set(0x1.715476p0F), shifter);
  const V16 n = Sub(shifted, shifter);
  // ln 2 in two parts, so that r keeps its low bits.
  V16 r = Fma(n, Set(-0x1.62e4p-1F), x);
  r = Fma(n, Set(-0x1.7f7d1cp-20F), r);
  V16 p = Fma(r, Set(1.0F / 5040.0F), Set(1.0F / 720.0F));
  p = Fma(p, r, Set(1.0F / 120.0F));
  p = Fma(p, r, Set(1.0F / 24.0F));
  p = Fma(p, r, Set(1.0F / 6.0F));
  p = Fma(p, r, Set(0.5F));
  p = Fma(p, r, Set(1.0F));
  p = Fma(p, r, Set(1.0F));
  V16 first;
  V16 second;
  PowersOfTwo(shifted, shifter, &first, &second);
  return Mul(Mul(p, first), second);
}

// 1 + e^-x, the divisor of sigmoid and silu.
TESSERA_INLINE V16 OnePlusExpMinus(V16 x) { return Add(Set(1.0F), Exp(Sub(Zero(), x))); }
TESSERA_INLINE V16 Sigmoid(V16 x) { return Div(Set(1.0F), OnePlusExpMinus(x)); }
TESSERA_INLINE V16 Silu(V16 x) { return Div(x, OnePlusExpMinus(x)); }

// out[i] = op(values of the inputs at i): whole vectors, then the rest.
template <typename Op>
TESSERA_INLINE void Map1(const float* a, float* out, int64_t n, Op op) {
  int64_t i = 0;
  for (; i + 16 <= n; i += 16) {
    Store(op(Load(a + i)), out + i);
  }
  if (i < n) {
    StoreFirst(op(LoadFirst(a + i, n - i)), out + i, n - i);
  }
}
template <typename Op>
TESSERA_INLINE void Map2(const float* a, const float* b, float* out, int64_t n, Op op) {
  int64_t i = 0;
  for (; i + 16 <= n; i += 16) {
    Store(op(Load(a + i), Load(b + i)), out + i);
  }
  if (i < n) {
    StoreFirst(op(LoadFirst(a + i, n - i), LoadFirst(b + i, n - i)), out + i, n - i);
  }
}

TESSERA_INLINE float SquareRoot(float x) { return __builtin_sqrtf(x); }

float Dot(const float* a, const float* b, int64_t n) {
  V16 sum = Zero();
  int64_t i = 0;
  for (; i + 16 <= n; i += 16) {
    sum = Fma(Load(a + i), Load(b + i), sum);
  }
  if (i < n) {
    sum = Fma(LoadFirst(a + i, n - i), LoadFirst(b + i, n - i), sum);
  }
  return Reduce(sum);
}

float Dot3(const float* a, const float* b, const float* c, int64_t n) {
  V16 sum = Zero();
  int64_t i = 0;
  for (; i + 16 <= n; i += 16) {
    sum = Fma(Mul(Load(a + i), Load(b + i)), Load(c + i), sum);
  }
  if (i < n) {
    const int64_t rest = n - i;
    sum = Fma(Mul(LoadFirst(a + i, rest), LoadFirst(b + i, rest)), LoadFirst(c + i, rest),
              sum);
  }
  return Reduce(sum);
}

void RmsNorm(const float* x, const float* weight, float eps, float* out, int64_t n) {
  const float mean = Dot(x, x, n) / static_cast<float>(n);
  const V16 factor = Set(1.0F / SquareRoot(mean + eps));
  Map2(x, weight, out, n, [=](V16 v, V16 w) { return Mul(Mul(v, factor), w); });
}

void LayerNorm(const float* x, const float* weight, const float* bias, float eps,
               float* out, int64_t n) {
  V16 sum = Zero();
  int64_t i = 0;
  for (; i + 16 <= n; i += 16) {
    sum = Add(sum, Load(x + i));
  }
  if (i < n) {
    sum = Add(sum, LoadFirst(x + i, n - i));
  }
  const V16 mean = Set(Reduce(sum) / static_cast<float>(n));
  V16 squares = Zero();
  for (i = 0; i + 16 <= n; i += 16) {
    const V16 centred = Sub(Load(x + i), mean);
    squares = Fma(centred, centred, squares);
  }
  if (i < n) {
    // The lanes beyond the end must add zero: take the mean from the lanes that exist.
    float centred[16] = {};
    StoreFirst(Sub(LoadFirst(x + i, n - i), mean), centred, n - i);
    const V16 rest = Load(centred);
    squares = Fma(rest, rest, squares);
  }
  const float variance = Reduce(squares) / static_cast<float>(n);
  const V16 factor = Set(1.0F / SquareRoot(variance + eps));
  for (i = 0; i + 16 <= n; i += 16) {
    Store(Fma(Mul(Sub(Load(x + i), mean), factor), Load(weight + i), Load(bias + i)),
          out + i);
  }
  if (i < n) {
    const int64_t rest = n - i;
    const V16 scaled = Mul(Sub(LoadFirst(x + i, rest), mean), factor);
    StoreFirst(Fma(scaled, LoadFirst(weight + i, rest), LoadFirst(bias + i, rest)),
               out + i, rest);
  }
}

void ExpRow(const float* x, float* out, int64_t n) {
  Map1(x, out, n, [](V16 v) { return Exp(v); });
}
void SigmoidRow(const float* x, float* out, int64_t n) {
  Map1(x, out, n, [](V16 v) { return Sigmoid(v); });
}
void SiluRow(const float* x, float* out, int64_t n) {
  Map1(x, out, n, [](V16 v) { return Silu(v); });
}
void SiluMul(const float* gate, const float* up, float limit, float* out, int64_t n) {
  const V16 most = Set(limit);
  const V16 least = Set(-limit);
  Map2(gate, up, out, n, [=](V16 g, V16 u) {
    // The bounds come first: Max and Min return their second operand if one is NaN.
    return Mul(Silu(Min(most, g)), Max(least, Min(most, u)));
  });
}
void AddScaled(float a, const float* x, float* out, int64_t n) {
  const V16 factor = Set(a);
  Map2(x, out, out, n, [=](V16 v, V16 sum) { return Fma(factor, v, sum); });
}
void AddProduct(const float* a, const float* x, float* out, int64_t n) {
  int64_t i = 0;
  for (; i + 16 <= n; i += 16) {
    Store(Fma(Load(a + i), Load(x + i), Load(out + i)), out + i);
  }
  if (i < n) {
    const int64_t rest = n - i;
    const V16 sum = LoadFirst(out + i, rest);
    StoreFirst(Fma(LoadFirst(a + i, rest), LoadFirst(x + i, rest), sum), out + i, rest);
  }
}

void WeightedSum(const float* base, int64_t stride, const int32_t* rows,
                 const float* weights, int64_t count, float* out, int64_t n) {
  for (int64_t i = 0; i < n; i += 16) {
    const int64_t rest = n - i < 16 ? n - i : 16;
    V16 sum = Zero();
    for (int64_t j = 0; j < count; ++j) {
      const int64_t index = rows == nullptr ? j : rows[j];
      if (index < 0) {
        continue;
      }
      const float* row = base + index * stride + i;
      sum = Fma(Set(weights[j]), rest == 16 ? Load(row) : LoadFirst(row, rest), sum);
    }
    StoreFirst(sum, out + i, rest);
  }
}

// The butterflies of lanes kDistance apart: a + b and a - b, as b * -1 + a, which rounds
// alike.
template <int kDistance>
TESSERA_INLINE V16 Butterfly(V16 v) {
  float signs[16];
  for (int i = 0; i < 16; ++i) {
    signs[i] = (i & kDistance) == 0 ? 1.0F : -1.0F;
  }
  return Fma(v, Load(signs), SwapLanes<kDistance>(v));
}

void Hadamard(float* x, int64_t n, float factor) {
  if (n >= 16) {
    for (int64_t i = 0; i < n; i += 16) {
      const V16 pairs = Butterfly<2>(Butterfly<1>(Load(x + i)));
      Store(Butterfly<8>(Butterfly<4>(pairs)), x + i);
    }
  }
  for (int64_t half = n >= 16 ? 16 : 1; half < n; half *= 2) {
    for (int64_t block = 0; block < n; block += 2 * half) {
      float* first = x + block;
      float* second = first + half;
      if (half < 16) {
        for (int64_t i = 0; i < half; ++i) {
          const float a = first[i];
          first[i] = a + second[i];
          second[i] = a - second[i];
        }
        continue;
      }
      for (int64_t i = 0; i < half; i += 16) {
        const V16 a = Load(first + i);
        const V16 b = Load(second + i);
        Store(Add(a, b), first + i);
        Store(Sub(a, b), second + i);
      }
    }
  }
  const V16 scale = Set(factor);
  for (int64_t i = 0; i < n; i += 16) {
    const int64_t rest = n - i < 16 ? n - i : 16;
    StoreFirst(Mul(LoadFirst(x + i, rest), scale), x + i, rest);
  }
}

void HyperExpand(const HyperExpandTask& task) {
  const int64_t m = task.num_streams;
  for (int64_t i = 0; i < task.dim; i += 16) {
    const int64_t rest = task.dim - i < 16 ? task.dim - i : 16;
    V16 old[kMaxStreams];
    for (int64_t j = 0; j < m; ++j) {
      old[j] = LoadFirst(task.streams + j * task.stream_stride + i, rest);
    }
    const V16 y = LoadFirst(task.y + i, rest);
    for (int64_t k = 0; k < m; ++k) {
      V16 sum = Mul(Set(task.post[k]), y);
      for (int64_t j = 0; j < m; ++j) {
        sum = Fma(Set(task.mix[j * task.mix_stride + k]), old[j], sum);
      }
      StoreFirst(sum, task.streams + k * task.stream_stride + i, rest);
    }
  }
}

}  // namespace
}  // namespace tessera::kernels::cpu::TESSERA_SIMD_ISA

#endif  // TESSERA_KERNELS_CPU_SIMD_SIMD_MATH_H_
