#include <cmath>
#include <vector>

#include "kernels/reference/reference_ops.h"

namespace tessera::kernels::reference {

template <typename T>
void Rope(TensorView x, TensorView positions, std::span<const float> inv_freq,
          RopePairing pairing) {
  const auto pairs = static_cast<int64_t>(inv_freq.size());
  TESSERA_CHECK_LE(2 * pairs, x.dim(2));
  for (int64_t t = 0; t < x.dim(0); ++t) {
    const auto position = static_cast<float>(*positions.row<int32_t>(t));
    for (int64_t i = 0; i < pairs; ++i) {
      const float angle = position * inv_freq[static_cast<size_t>(i)];
      // Through float64 in both modes: the cosine of a large float32 angle is exact to
      // the last bit.
      const auto cosine = static_cast<T>(std::cos(static_cast<double>(angle)));
      const auto sine = static_cast<T>(std::sin(static_cast<double>(angle)));
      const bool interleaved = pairing == RopePairing::kInterleaved;
      const int64_t first = interleaved ? 2 * i : i;
      const int64_t second = interleaved ? 2 * i + 1 : i + pairs;
      for (int64_t h = 0; h < x.dim(1); ++h) {
        T* values = x.row<T>(t, h);
        const T a = values[first];
        const T b = values[second];
        values[first] = a * cosine - b * sine;
        values[second] = a * sine + b * cosine;
      }
    }
  }
}

template <typename T>
void Hadamard(TensorView x) {
  const int64_t size = x.dim(x.rank - 1);
  TESSERA_CHECK(size > 0 && (size & (size - 1)) == 0);
  TESSERA_CHECK(x.rank == 2 || x.rank == 3);
  const auto factor = static_cast<T>(1.0 / std::sqrt(static_cast<double>(size)));
  const int64_t heads = x.rank == 3 ? x.dim(1) : 1;
  for (int64_t row = 0; row < x.dim(0) * heads; ++row) {
    T* values = x.rank == 3 ? x.row<T>(row / heads, row % heads) : x.row<T>(row);
    for (int64_t half = 1; half < size; half *= 2) {
      for (int64_t block = 0; block < size; block += 2 * half) {
        for (int64_t i = block; i < block + half; ++i) {
          const T a = values[i];
          const T b = values[i + half];
          values[i] = a + b;
          values[i + half] = a - b;
        }
      }
    }
    for (int64_t i = 0; i < size; ++i) {
      values[i] *= factor;
    }
  }
}

#define TESSERA_INSTANTIATE(T)                                                        \
  template void Rope<T>(TensorView, TensorView, std::span<const float>, RopePairing); \
  template void Hadamard<T>(TensorView);
TESSERA_INSTANTIATE(float)
TESSERA_INSTANTIATE(double)
#undef TESSERA_INSTANTIATE

}  // namespace tessera::kernels::reference
