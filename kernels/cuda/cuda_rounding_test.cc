// Rounding to fp8 and fp4 by the CUDA ops under the simulator: the reference's bits over
// many magnitudes, at every midpoint, and in groups that are damaged.
#include <cmath>
#include <cstdint>
#include <limits>
#include <string>
#include <vector>

#include "gtest/gtest.h"

#include "kernels/cuda/cuda_ops.h"
#include "kernels/reference/reference_ops.h"
#include "tests/testing/simulated_device.h"

namespace tessera::kernels::cuda {
namespace {

// Rows of [n, cols]: multiples of 1/64 of several powers of two, which have all midpoints
// of either format among them, then zeros, a NaN and an infinity.
std::vector<float> HardRows(int64_t cols) {
  std::vector<float> values;
  for (const float unit :
       {0x1p-149F, 0x1p-40F, 0x1p-16F, 0x1p-6F, 0x1p-3F, 1.0F, 0x1.8p9F, 0x1p119F}) {
    for (int64_t i = 0; i < cols; ++i) {
      const auto step = static_cast<float>(i * 7 % 449);
      values.push_back((i % 3 == 0 ? -step : step) * unit);
    }
  }
  const float infinity = std::numeric_limits<float>::infinity();
  for (const float last : {0.0F, -0.0F, std::nanf(""), -infinity}) {
    values.insert(values.end(), static_cast<size_t>(cols - 1), 0.5F * std::abs(last));
    values.back() = 0;
    values.push_back(last);
  }
  return values;
}

TEST(CudaRounding, FakeQuantizationHasTheReferencesBits) {
  for (uint64_t seed = 1; seed <= kSeeds; ++seed) {
    for (const int64_t cols : {1, 33, 450}) {
      SimulatedDevice device(seed);
      std::vector<TensorView> views;
      for (int i = 0; i < 3; ++i) {
        const TensorView hard = device.Floats(HardRows(cols));
        views.push_back(hard.Reshape({hard.dim(0) / cols, cols}));
        views.push_back(device.Random({5, 3, cols}));
      }
      device.Upload();
      for (size_t i = 0; i < 2; ++i) {
        FakeQuantizeE4M3(device.stream(), device.On(views[i]));
        FakeQuantizeFp4(device.stream(), device.On(views[i + 2]), Fp4Scale::kE8M0);
        FakeQuantizeFp4(device.stream(), device.On(views[i + 4]), Fp4Scale::kE4M3);
        reference::FakeQuantizeE4M3<float>(views[i]);
        reference::FakeQuantizeFp4<float>(views[i + 2], Fp4Scale::kE8M0);
        reference::FakeQuantizeFp4<float>(views[i + 4], Fp4Scale::kE4M3);
      }
      device.ExpectEqual(std::to_string(cols) + " columns");
    }
  }
}

}  // namespace
}  // namespace tessera::kernels::cuda
