// Host memory that devices use, and flags that the host raises for them: what
// GpuMachine::HostRegisterReadOnly, GpuFlag and the streams that wait for one promise,
// over the simulator (sim_host_memory_test) and over CUDA (gpu_host_memory_test, where
// there is a GPU).
#include <cstdint>
#include <limits>
#include <memory>
#include <numeric>
#include <thread>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "gtest/gtest.h"

#include "kernels/cuda/primitives/device.cuh"
#include "kernels/cuda/primitives/device_flag.h"
#include "tests/testing/gpu_device_test.h"

namespace tessera::kernels::cuda {
namespace {

constexpr int kCount = 1000;
constexpr size_t kBytes = kCount * sizeof(int32_t);

// out = x * factor
struct ScaledKernel {
  static constexpr const char* kName = "ScaledKernel";
  GlobalSpan<const int32_t> x;
  GlobalSpan<int32_t> out;
  int32_t factor;

  TESSERA_DEVICE void operator()(Thread& thread) const {
    const int64_t i = GlobalIndex(thread);
    if (i < x.size) {
      thread.Store(out, i, thread.Load(x, i) * factor);
    }
  }
};

class HostMemory : public DeviceTest {
 protected:
  void SetUp() override {
    DeviceTest::SetUp();
    if (machine_ == nullptr) {
      return;  // skipped
    }
    auto flag = GpuFlag::Create(machine_);
    ASSERT_TRUE(flag.ok()) << flag.status();
    flag_ = std::move(*flag);
    const auto staging = machine_->MallocHost(kBytes);
    const auto rows = machine_->Malloc(0, kBytes);
    ASSERT_TRUE(staging.ok() && rows.ok());
    staging_ = static_cast<int32_t*>(*staging);
    rows_ = static_cast<int32_t*>(*rows);
  }
  void TearDown() override {
    if (machine_ != nullptr) {
      EXPECT_TRUE(stream_->Synchronize().ok());
      flag_ = nullptr;
      EXPECT_TRUE(machine_->Free(staging_).ok());
      EXPECT_TRUE(machine_->Free(rows_).ok());
    }
  }

  void Scaled(GpuStream& stream, const int32_t* x, int32_t factor, int32_t* out) {
    Launch(stream, {.grid = {BlocksFor(kCount, 128)}, .block = {128}},
           ScaledKernel{{x, kCount}, {out, kCount}, factor});
  }
  std::vector<int32_t> Read(GpuStream& stream, const int32_t* memory) {
    std::vector<int32_t> values(kCount);
    EXPECT_TRUE(stream.MemcpyAsync(values.data(), memory, kBytes).ok());
    EXPECT_TRUE(stream.Synchronize().ok());
    return values;
  }
  static std::vector<int32_t> Rising(int32_t first) {
    std::vector<int32_t> values(kCount);
    std::iota(values.begin(), values.end(), first);
    return values;
  }
  void Gather(int32_t first) {
    machine_->HostWrites(staging_, kBytes);
    std::iota(staging_, staging_ + kCount, first);
  }

  std::unique_ptr<GpuFlag> flag_;
  int32_t* staging_ = nullptr;
  int32_t* rows_ = nullptr;
};

TEST_F(HostMemory, AKernelReadsARegisteredTableWhereItLies) {
  const std::vector<int32_t> table = Rising(5);
  const auto on_device = machine_->HostRegisterReadOnly(table.data(), kBytes);
  ASSERT_TRUE(on_device.ok()) << on_device.status();
  Scaled(*stream_, static_cast<const int32_t*>(*on_device), 1, rows_);
  EXPECT_EQ(Read(*stream_, rows_), table);
  EXPECT_TRUE(machine_->HostUnregister(table.data()).ok());
}

TEST_F(HostMemory, ATableIsRegisteredOnceAndAgainOnceItIsNot) {
  const std::vector<int32_t> table = Rising(5);
  for (int i = 0; i < 2; ++i) {
    ASSERT_TRUE(machine_->HostRegisterReadOnly(table.data(), kBytes).ok());
    EXPECT_EQ(machine_->HostRegisterReadOnly(table.data(), kBytes).status().code(),
              absl::StatusCode::kFailedPrecondition);
    EXPECT_TRUE(machine_->HostUnregister(table.data()).ok());
  }
  EXPECT_EQ(machine_->HostUnregister(table.data()).code(),
            absl::StatusCode::kInvalidArgument);
}

TEST_F(HostMemory, AStreamWaitsForItsFlagWhileAnotherGoesOn) {
  const auto other = NewStream();
  GpuEvent copied(machine_);
  ASSERT_TRUE(stream_->WaitFlag(*flag_, 1).ok());
  ASSERT_TRUE(stream_->MemcpyAsync(rows_, staging_, kBytes).ok());
  ASSERT_TRUE(stream_->Record(copied).ok());

  const std::vector<int32_t> table = Rising(1);
  const auto beside = machine_->Malloc(0, kBytes);
  ASSERT_TRUE(beside.ok());
  auto* const values = static_cast<int32_t*>(*beside);
  ASSERT_TRUE(other->MemcpyAsync(values, table.data(), kBytes).ok());
  EXPECT_EQ(Read(*other, values), table);
  EXPECT_EQ(copied.Query().value_or(true), false);

  Gather(7);
  flag_->Store(1);
  EXPECT_EQ(Read(*stream_, rows_), Rising(7));
  EXPECT_EQ(copied.Query().value_or(false), true);
  EXPECT_TRUE(machine_->Free(values).ok());
}

TEST_F(HostMemory, AnotherThreadMayRaiseTheFlag) {
  GpuEvent copied(machine_);
  ASSERT_TRUE(stream_->WaitFlag(*flag_, 1).ok());
  ASSERT_TRUE(stream_->MemcpyAsync(rows_, staging_, kBytes).ok());
  ASSERT_TRUE(stream_->Record(copied).ok());
  std::thread gatherer([this] {
    Gather(9);
    flag_->Store(1);
  });
  while (!copied.Query().value_or(true)) {  // ends as soon as asking fails
    std::this_thread::yield();
  }
  gatherer.join();
  EXPECT_EQ(Read(*stream_, rows_), Rising(9));
}

TEST_F(HostMemory, ValuesOfAFlagAreComparedAroundTheirEnd) {
  GpuEvent reached(machine_);
  flag_->Store(std::numeric_limits<uint64_t>::max());
  ASSERT_TRUE(stream_->WaitFlag(*flag_, 2).ok());
  ASSERT_TRUE(stream_->Record(reached).ok());
  EXPECT_EQ(reached.Query().value_or(true), false) << "-1 is not 2 or more";
  flag_->Store(2);
  ASSERT_TRUE(stream_->WaitFlag(*flag_, std::numeric_limits<uint64_t>::max()).ok());
  EXPECT_TRUE(stream_->Synchronize().ok()) << "2 is -1 or more";
  EXPECT_EQ(flag_->Load(), 2U);
}

TEST_F(HostMemory, AGraphIsLaunchedBeforeItsRowsAtEachReplay) {
  GpuEvent done(machine_);
  ASSERT_TRUE(stream_->BeginCapture().ok());
  ASSERT_TRUE(stream_->WaitFlag(*flag_, 1).ok());
  ASSERT_TRUE(stream_->MemcpyAsync(rows_, staging_, kBytes).ok());
  auto graph = stream_->EndCapture();
  ASSERT_TRUE(graph.ok()) << graph.status();
  for (int32_t step = 1; step <= 3; ++step) {
    ASSERT_TRUE(stream_->Launch(*graph).ok());
    ASSERT_TRUE(stream_->Record(done).ok());
    EXPECT_EQ(done.Query().value_or(true), false) << "step " << step;
    Gather(step);
    flag_->Store(1);
    EXPECT_EQ(Read(*stream_, rows_), Rising(step));
    flag_->Store(0);
  }
}

}  // namespace
}  // namespace tessera::kernels::cuda
