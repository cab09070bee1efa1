// DeviceTest: the fixture of tests that run over the simulator and, where there is one,
// on a GPU: the first device, a stream of it and copies of host arrays there. Without a
// GPU they say so and skip.
#ifndef TESSERA_TESTS_TESTING_GPU_DEVICE_TEST_H_
#define TESSERA_TESTS_TESTING_GPU_DEVICE_TEST_H_

#include <cstddef>
#include <memory>
#include <utility>
#include <vector>

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
  void TearDown() override { FreeArrays(); }
  std::unique_ptr<GpuStream> NewStream() {
    auto stream = GpuStream::Create(machine_, 0);
    EXPECT_TRUE(stream.ok()) << stream.status();
    return std::move(*stream);
  }

  // A copy of the values on the device, until FreeArrays.
  template <typename T>
  T* OnDevice(const std::vector<T>& values) {
    const size_t bytes = values.size() * sizeof(T);
    auto memory = machine_->Malloc(0, bytes);
    EXPECT_TRUE(memory.ok()) << memory.status();
    EXPECT_TRUE(stream_->MemcpyAsync(*memory, values.data(), bytes).ok());
    arrays_.push_back(*memory);
    return static_cast<T*>(*memory);
  }
  // What the device's array holds when all work before is done.
  template <typename T>
  std::vector<T> Fetch(const T* array, size_t count) {
    std::vector<T> values(count);
    EXPECT_TRUE(stream_->MemcpyAsync(values.data(), array, count * sizeof(T)).ok());
    const absl::Status ended = stream_->Synchronize();
    EXPECT_TRUE(ended.ok()) << ended;
    return values;
  }
  void FreeArrays() {
    for (void* const array : arrays_) {
      EXPECT_TRUE(machine_->Free(array).ok());
    }
    arrays_.clear();
  }

  std::shared_ptr<GpuMachine> machine_;
  std::unique_ptr<GpuStream> stream_;

 private:
  std::vector<void*> arrays_;
};

}  // namespace tessera::kernels::cuda

#endif  // TESSERA_TESTS_TESTING_GPU_DEVICE_TEST_H_
