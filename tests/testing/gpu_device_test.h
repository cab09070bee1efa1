// DeviceTest: the fixture of tests that run over the simulator and, where there is one,
// on a GPU: the first device and a stream of it. Without a GPU they say so and skip.
#ifndef TESSERA_TESTS_TESTING_GPU_DEVICE_TEST_H_
#define TESSERA_TESTS_TESTING_GPU_DEVICE_TEST_H_

#include <memory>
#include <utility>

#include "absl/status/status.h"
#include "gtest/gtest.h"

#include "kernels/cuda/primitives/device.cuh"

namespace tessera::kernels::cuda {

class DeviceTest : public testing::Test {
 protected:
  void SetUp() override {
    auto machine = GpuMachine::Create();
    if (machine.status().code() == absl::StatusCode::kNotFound) {
      GTEST_SKIP() << "skipped: " << machine.status().message();
    }
    ASSERT_TRUE(machine.ok()) << machine.status();
    machine_ = std::move(*machine);
    stream_ = NewStream();
  }
  std::unique_ptr<GpuStream> NewStream() {
    auto stream = GpuStream::Create(machine_, 0);
    EXPECT_TRUE(stream.ok()) << stream.status();
    return std::move(*stream);
  }

  std::shared_ptr<GpuMachine> machine_;
  std::unique_ptr<GpuStream> stream_;
};

}  // namespace tessera::kernels::cuda

#endif  // TESSERA_TESTS_TESTING_GPU_DEVICE_TEST_H_
