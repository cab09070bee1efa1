// The probes do what their time is taken for: every word is read once, and no
// multiply-add is left out.
#include <cmath>
#include <cstdint>
#include <vector>

#include "gtest/gtest.h"

#include "kernels/cuda/cuda_ops.h"
#include "tests/testing/simulated_device.h"

namespace tessera::kernels::cuda {
namespace {

TEST(CudaProbe, ReadAllSumsEveryWordOnce) {
  for (const int64_t count : {4, 1020, 40 * 1024}) {
    SimulatedDevice device(1);
    std::vector<int32_t> values(static_cast<size_t>(count));
    uint32_t expected = 0;
    for (size_t i = 0; i < values.size(); ++i) {
      values[i] = static_cast<int32_t>(i * 2654435761U);
      expected += static_cast<uint32_t>(values[i]);
    }
    const TensorView words = device.Ints(values);
    const TensorView sum = device.Ints({0});
    device.Upload();
    ReadAll(device.stream(), device.On(words), 3, device.On(sum));
    *sum.as<int32_t>() = static_cast<int32_t>(expected);
    device.ExpectEqual("ReadAll");
  }
}

TEST(CudaProbe, MultiplyAddsAreAsManyAsItSays) {
  constexpr int64_t kThreads = 300;
  constexpr int64_t kRounds = 5;
  SimulatedDevice device(1);
  const TensorView out = device.Floats(std::vector<float>(kThreads, 0.0F));
  device.Upload();
  const double count = MultiplyAdds(device.stream(), kRounds, device.On(out));
  double counted = 0;
  for (int64_t i = 0; i < kThreads; ++i) {
    float sum = 0;
    for (int64_t chain = 0; chain < 8; ++chain) {
      auto x = static_cast<float>(i + chain);
      for (int64_t round = 0; round < kRounds; ++round, ++counted) {
        x = std::fma(x, 0.5F, 1.0F);
      }
      sum += x;
    }
    out.as<float>()[i] = sum;
  }
  device.ExpectEqual("MultiplyAdds");
  EXPECT_EQ(count, counted);
}

}  // namespace
}  // namespace tessera::kernels::cuda
