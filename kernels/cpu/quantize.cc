#include <algorithm>
#include <cmath>
#include <limits>

#include "kernels/cpu/cpu_ops.h"
#include "kernels/cpu/row_pairs.h"
#include "model/formats/number_formats.h"

namespace tessera::kernels::cpu {
namespace {

// The smallest maxima that scales are made from: scales 2^-126 and 2^-9.
constexpr float kFp4E8M0AmaxFloor = 6.0F * 0x1p-126F;
constexpr float kFp4E4M3AmaxFloor = 6.0F * 0x1p-9F;

float Fp4ScaleOf(Fp4Scale kind, float largest) {
  if (kind == Fp4Scale::kE8M0) {
    return model::PowerOfTwoCeil(std::max(largest, kFp4E8M0AmaxFloor) * (1.0F / 6.0F));
  }
  return model::E4M3ToFloat(
      model::FloatToE4M3(std::max(largest, kFp4E4M3AmaxFloor) / 6.0F));
}

// Rounds each vector of x on the grid that `scale_of` makes of its largest magnitude; a
// vector that is not finite becomes NaN.
template <typename ScaleOf>
void FakeQuantize(CpuContext& context, TensorView x, const ScaleOf& scale_of,
                  void (*round)(float*, float, int64_t)) {
  const SimdOps& simd = context.simd();
  ForEachRowPair(context, x, x, 2, [&](const float*, float* values, int64_t n, int) {
    const float largest = simd.largest_magnitude(values, n);
    if (std::isnan(largest)) {
      std::fill_n(values, n, largest);
      return;
    }
    round(values, scale_of(largest), n);
  });
}

}  // namespace

void FakeQuantizeE4M3(CpuContext& context, TensorView x) {
  FakeQuantize(
      context, x,
      [](float largest) {
        return model::PowerOfTwoCeil(std::max(largest, model::kActivationAmaxFloor) *
                                     (1.0F / 448.0F));
      },
      context.simd().round_e4m3);
}

void FakeQuantizeFp4(CpuContext& context, TensorView x, Fp4Scale scale) {
  FakeQuantize(
      context, x, [=](float largest) { return Fp4ScaleOf(scale, largest); },
      context.simd().round_fp4);
}

}  // namespace tessera::kernels::cpu
