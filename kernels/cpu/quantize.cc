#include <algorithm>
#include <cmath>
#include <limits>

#include "kernels/cpu/cpu_ops.h"
#include "kernels/cpu/row_pairs.h"

namespace tessera::kernels::cpu {
namespace {

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
  FakeQuantize(context, x, E4M3GroupScale, context.simd().round_e4m3);
}

void FakeQuantizeFp4(CpuContext& context, TensorView x, Fp4Scale scale) {
  FakeQuantize(
      context, x, [=](float largest) { return Fp4GroupScale(scale, largest); },
      context.simd().round_fp4);
}

}  // namespace tessera::kernels::cpu
