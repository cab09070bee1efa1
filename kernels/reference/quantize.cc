#include <algorithm>
#include <cmath>
#include <limits>

#include "kernels/reference/reference_ops.h"
#include "kernels/reference/row_pairs.h"
#include "model/formats/number_formats.h"

namespace tessera::kernels::reference {
namespace {

// max |x|, or NaN if a value is not finite.
template <typename T>
float LargestMagnitude(const T* values, int64_t n) {
  float largest = 0;
  for (int64_t i = 0; i < n; ++i) {
    const auto value = static_cast<float>(values[i]);
    if (!std::isfinite(value)) {
      return std::numeric_limits<float>::quiet_NaN();
    }
    largest = std::max(largest, std::abs(value));
  }
  return largest;
}

// Replaces each vector of x by round(x / scale) * scale, or by NaN if it is damaged.
template <typename T, typename ScaleOf, typename Round>
void FakeQuantize(TensorView x, ScaleOf scale_of, Round round) {
  ForEachRowPair<T>(x, x, [&](const T*, T* values, int64_t n) {
    const float largest = LargestMagnitude(values, n);
    if (std::isnan(largest)) {
      std::fill_n(values, n, std::numeric_limits<T>::quiet_NaN());
      return;
    }
    const float scale = scale_of(largest);
    for (int64_t i = 0; i < n; ++i) {
      values[i] = static_cast<T>(round(static_cast<float>(values[i]) / scale) * scale);
    }
  });
}

}  // namespace

template <typename T>
void FakeQuantizeE4M3(TensorView x) {
  FakeQuantize<T>(x, E4M3GroupScale, [](float value) {
    return model::E4M3ToFloat(model::FloatToE4M3(value));
  });
}

template <typename T>
void FakeQuantizeFp4(TensorView x, Fp4Scale scale) {
  FakeQuantize<T>(
      x, [=](float largest) { return Fp4GroupScale(scale, largest); },
      [](float value) { return model::Fp4ToFloat(model::FloatToFp4(value)); });
}

#define TESSERA_INSTANTIATE(T)                   \
  template void FakeQuantizeE4M3<T>(TensorView); \
  template void FakeQuantizeFp4<T>(TensorView, Fp4Scale);
TESSERA_INSTANTIATE(float)
TESSERA_INSTANTIATE(double)
#undef TESSERA_INSTANTIATE

}  // namespace tessera::kernels::reference
