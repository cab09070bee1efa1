// Rounding of activations to the grids of e4m3 and e2m1, written once for all instruction
// sets. Included through simd_table.h only.
#ifndef TESSERA_KERNELS_CPU_SIMD_SIMD_QUANTIZE_H_
#define TESSERA_KERNELS_CPU_SIMD_SIMD_QUANTIZE_H_

namespace tessera::kernels::cpu::TESSERA_SIMD_ISA {
namespace {

float LargestMagnitude(const float* x, int64_t n) {
  V16 largest = Zero();
  V16 damage = Zero();  // x - x is zero, or NaN where x is not finite
  int64_t i = 0;
  for (; i + 16 <= n; i += 16) {
    const V16 v = Load(x + i);
    largest = Max(largest, Abs(v));
    damage = Add(damage, Sub(v, v));
  }
  if (i < n) {
    const V16 v = LoadFirst(x + i, n - i);
    largest = Max(largest, Abs(v));
    damage = Add(damage, Sub(v, v));
  }
  float lanes[16];
  Store(largest, lanes);
  float maximum = lanes[0];
  for (int lane = 1; lane < 16; ++lane) {
    maximum = lanes[lane] > maximum ? lanes[lane] : maximum;
  }
  return maximum + Reduce(damage);
}

// Multiples of the last bit of `anchor`, which a sum with it is rounded to.
TESSERA_INLINE V16 RoundToAnchor(V16 magnitude, float anchor) {
  return Sub(Add(magnitude, Set(anchor)), Set(anchor));
}

// e4m3 keeps 3 of 23 mantissa bits down to 2^-6, and steps of 2^-9 below, which is the
// last bit of a float near 2^14.
TESSERA_INLINE V16 NearestE4M3(V16 magnitude) {
  const V16 limited = Min(magnitude, Set(448.0F));
  return SelectLess(limited, Set(0x1p-6F), RoundToAnchor(limited, 0x1p14F),
                    RoundMantissa<20>(limited));
}
// e2m1 keeps one mantissa bit down to 1, and steps of 0.5 below, the last bit near 2^22.
TESSERA_INLINE V16 NearestFp4(V16 magnitude) {
  const V16 limited = Min(magnitude, Set(6.0F));
  return SelectLess(limited, Set(1.0F), RoundToAnchor(limited, 0x1p22F),
                    RoundMantissa<22>(limited));
}

void RoundE4M3(float* x, float scale, int64_t n) {
  const V16 divisor = Set(scale);
  Map1(x, x, n, [=](V16 v) {
    const V16 q = Div(v, divisor);
    return Mul(CopySign(NearestE4M3(Abs(q)), q), divisor);
  });
}

void RoundFp4(float* x, float scale, int64_t n) {
  const V16 divisor = Set(scale);
  Map1(x, x, n, [=](V16 v) {
    const V16 q = Div(v, divisor);
    return Mul(CopySign(NearestFp4(Abs(q)), q), divisor);
  });
}

}  // namespace
}  // namespace tessera::kernels::cpu::TESSERA_SIMD_ISA

#endif  // TESSERA_KERNELS_CPU_SIMD_SIMD_QUANTIZE_H_
