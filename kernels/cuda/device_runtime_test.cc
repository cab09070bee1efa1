// The seam between the CUDA code and its device: what GpuMachine, GpuStream, GpuEvent and
// GpuGraph promise, over the simulator (sim_runtime_test) and over the CUDA runtime
// (gpu_runtime_test, where there is a GPU).
#include <cstdint>
#include <memory>
#include <numeric>
#include <thread>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "gtest/gtest.h"

#include "kernels/cuda/primitives/device.cuh"
#include "tests/testing/gpu_device_test.h"

namespace tessera::kernels::cuda {
namespace {

constexpr int kCount = 1000;
constexpr size_t kBytes = kCount * sizeof(int32_t);

// x = x * factor + term
struct AffineKernel {
  static constexpr const char* kName = "AffineKernel";
  GlobalSpan<int32_t> x;
  int32_t factor;
  int32_t term;

  TESSERA_DEVICE void operator()(Thread& thread) const {
    const int64_t i = GlobalIndex(thread);
    if (i < x.size) {
      thread.Store(x, i, thread.Load(x, i) * factor + term);
    }
  }
};

// Every thread of a block adds to one word of its shared memory; thread 0 stores that.
struct CountKernel {
  static constexpr const char* kName = "CountKernel";
  GlobalSpan<int32_t> counts;  // a block each

  TESSERA_DEVICE void operator()(Thread& thread) const {
    const SharedSpan<int32_t> count = thread.DynamicShared<int32_t>();
    // The last word that was asked for is there.
    const int64_t at = count.size - 1;
    if (thread.linear_thread() == 0) {
      thread.Store(count, at, 0);
    }
    thread.SyncBlock();
    thread.AtomicAdd(count, at, 1);
    thread.SyncBlock();
    if (thread.linear_thread() == 0) {
      thread.Store(counts, thread.block_idx().x, thread.Load(count, at));
    }
  }
};

void LaunchAffine(GpuStream& stream, void* memory, int32_t factor, int32_t term) {
  Launch(stream, {.grid = {BlocksFor(kCount, 128)}, .block = {128}},
         AffineKernel{{static_cast<int32_t*>(memory), kCount}, factor, term});
}

class DeviceRuntime : public DeviceTest {
 protected:
  static std::vector<int32_t> Rising() {
    std::vector<int32_t> values(kCount);
    std::iota(values.begin(), values.end(), 1);
    return values;
  }
  // Device memory with Rising() in it.
  void* Filled() {
    auto memory = machine_->Malloc(0, kBytes);
    EXPECT_TRUE(memory.ok()) << memory.status();
    const std::vector<int32_t> values = Rising();
    EXPECT_TRUE(stream_->MemcpyAsync(*memory, values.data(), kBytes).ok());
    return *memory;
  }
  std::vector<int32_t> Read(const void* memory) {
    std::vector<int32_t> values(kCount);
    EXPECT_TRUE(stream_->MemcpyAsync(values.data(), memory, kBytes).ok());
    EXPECT_TRUE(stream_->Synchronize().ok());
    return values;
  }
  static std::vector<int32_t> Affine(std::vector<int32_t> values, int32_t factor,
                                     int32_t term) {
    for (int32_t& value : values) {
      value = value * factor + term;
    }
    return values;
  }
};

TEST_F(DeviceRuntime, AKernelRunsBetweenTheCopiesAroundIt) {
  void* const memory = Filled();
  LaunchAffine(*stream_, memory, 3, 7);
  LaunchAffine(*stream_, memory, 2, 1);
  EXPECT_EQ(Read(memory), Affine(Affine(Rising(), 3, 7), 2, 1));
  EXPECT_TRUE(machine_->Free(memory).ok());
}

TEST_F(DeviceRuntime, PageableMemoryIsReadBeforeTheCopyReturns) {
  auto memory = machine_->Malloc(0, kBytes);
  ASSERT_TRUE(memory.ok());
  std::vector<int32_t> values = Rising();
  ASSERT_TRUE(stream_->MemcpyAsync(*memory, values.data(), kBytes).ok());
  std::fill(values.begin(), values.end(), -1);
  EXPECT_EQ(Read(*memory), Rising());
  EXPECT_TRUE(machine_->Free(*memory).ok());
}

TEST_F(DeviceRuntime, CopiesInTwoDimensionsKeepThePitchOfEachSide) {
  void* const memory = Filled();
  std::vector<int32_t> seen(3 * 5, -1);
  ASSERT_TRUE(stream_
                  ->Memcpy2DAsync(seen.data(), static_cast<int32_t*>(memory) + 2,
                                  {.row_bytes = 2 * sizeof(int32_t),
                                   .rows = 3,
                                   .to_pitch = 5 * sizeof(int32_t),
                                   .from_pitch = 7 * sizeof(int32_t)})
                  .ok());
  ASSERT_TRUE(stream_->Synchronize().ok());
  EXPECT_EQ(seen, (std::vector<int32_t>{3, 4, -1, -1, -1, 10, 11, -1, -1, -1, 17, 18, -1,
                                        -1, -1}));
  EXPECT_TRUE(machine_->Free(memory).ok());
}

TEST_F(DeviceRuntime, ManagedMemoryIsTheHostsAfterSynchronize) {
  auto memory = machine_->MallocManaged(0, kBytes);
  ASSERT_TRUE(memory.ok());
  ASSERT_TRUE(stream_->MemsetAsync(*memory, 0, kBytes).ok());
  LaunchAffine(*stream_, *memory, 1, 41);
  ASSERT_TRUE(stream_->Synchronize().ok());
  auto* const values = static_cast<int32_t*>(*memory);
  EXPECT_EQ(values[kCount - 1], 41);
  values[0] = 100;
  LaunchAffine(*stream_, *memory, 1, 1);
  ASSERT_TRUE(stream_->Synchronize().ok());
  EXPECT_EQ(values[0], 101);
  EXPECT_EQ(values[1], 42);
  EXPECT_TRUE(machine_->Free(*memory).ok());
}

TEST_F(DeviceRuntime, BlocksHaveTheSharedMemoryThatALaunchAsksFor) {
  constexpr int64_t kBlocks = 5;
  for (const uint32_t shared_bytes : {4U, 48U * 1024, kMaxSharedBytes}) {
    auto memory = machine_->Malloc(0, kBytes);
    ASSERT_TRUE(memory.ok());
    ASSERT_TRUE(stream_->MemsetAsync(*memory, 0, kBytes).ok());
    Launch(*stream_, {.grid = {kBlocks}, .block = {96}, .shared_bytes = shared_bytes},
           CountKernel{{static_cast<int32_t*>(*memory), kBlocks}});
    const std::vector<int32_t> counts = Read(*memory);
    for (size_t block = 0; block < kBlocks; ++block) {
      EXPECT_EQ(counts[block], 96) << shared_bytes;
    }
    EXPECT_TRUE(machine_->Free(*memory).ok());
  }
}

TEST_F(DeviceRuntime, AnEventOrdersTwoStreams) {
  void* const memory = Filled();
  ASSERT_TRUE(stream_->Synchronize().ok());
  const auto other = NewStream();
  GpuEvent done(machine_);
  EXPECT_TRUE(done.Synchronize().ok());  // recorded nowhere
  EXPECT_TRUE(stream_->Wait(done).ok());
  LaunchAffine(*other, memory, 3, 0);
  ASSERT_TRUE(other->Record(done).ok());
  ASSERT_TRUE(stream_->Wait(done).ok());
  LaunchAffine(*stream_, memory, 1, 5);
  EXPECT_EQ(Read(memory), Affine(Rising(), 3, 5));
  EXPECT_TRUE(done.Synchronize().ok());
  EXPECT_TRUE(machine_->Free(memory).ok());
}

TEST_F(DeviceRuntime, AnEventIsAskedWithoutWaiting) {
  void* const memory = Filled();
  GpuEvent event(machine_);
  EXPECT_EQ(event.Query().value_or(false), true) << "nothing was recorded";
  LaunchAffine(*stream_, memory, 2, 0);
  ASSERT_TRUE(stream_->Record(event).ok());
  while (!event.Query().value_or(true)) {  // ends as soon as asking fails
    std::this_thread::yield();
  }
  EXPECT_TRUE(event.Synchronize().ok());
  EXPECT_EQ(event.Query().value_or(false), true);
  EXPECT_EQ(Read(memory), Affine(Rising(), 2, 0));
  EXPECT_TRUE(machine_->Free(memory).ok());
}

TEST_F(DeviceRuntime, AStreamIsAskedWithoutWaiting) {
  EXPECT_EQ(stream_->Query().value_or(false), true) << "nothing was enqueued";
  void* const memory = Filled();
  LaunchAffine(*stream_, memory, 2, 0);
  while (!stream_->Query().value_or(true)) {  // ends as soon as asking fails
    std::this_thread::yield();
  }
  EXPECT_EQ(stream_->Query().value_or(false), true);
  EXPECT_EQ(Read(memory), Affine(Rising(), 2, 0));
  EXPECT_TRUE(machine_->Free(memory).ok());
}

TEST_F(DeviceRuntime, AGraphRepeatsWhatTwoStreamsRecorded) {
  void* const memory = Filled();
  ASSERT_TRUE(stream_->Synchronize().ok());
  const auto other = NewStream();
  GpuEvent fork(machine_);
  GpuEvent join(machine_);
  ASSERT_TRUE(stream_->BeginCapture().ok());
  LaunchAffine(*stream_, memory, 2, 0);
  ASSERT_TRUE(stream_->Record(fork).ok());
  ASSERT_TRUE(other->Wait(fork).ok());
  LaunchAffine(*other, memory, 1, 1);
  ASSERT_TRUE(other->Record(join).ok());
  ASSERT_TRUE(stream_->Wait(join).ok());
  auto graph = stream_->EndCapture();
  ASSERT_TRUE(graph.ok()) << graph.status();
  EXPECT_EQ(graph->num_nodes(), 2);
  EXPECT_GE(graph->device_bytes(), 0);
  EXPECT_EQ(Read(memory), Rising()) << "a capture runs nothing";
  ASSERT_TRUE(stream_->Launch(*graph).ok());
  ASSERT_TRUE(stream_->Launch(*graph).ok());
  EXPECT_EQ(Read(memory), Affine(Affine(Rising(), 2, 1), 2, 1));
  EXPECT_TRUE(machine_->Free(memory).ok());
}

TEST_F(DeviceRuntime, ACaptureThatWasNotJoinedIsRefused) {
  void* const memory = Filled();
  ASSERT_TRUE(stream_->Synchronize().ok());
  const auto other = NewStream();
  GpuEvent fork(machine_);
  ASSERT_TRUE(stream_->BeginCapture().ok());
  ASSERT_TRUE(stream_->Record(fork).ok());
  ASSERT_TRUE(other->Wait(fork).ok());
  LaunchAffine(*other, memory, 1, 1);
  EXPECT_EQ(stream_->EndCapture().status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_TRUE(machine_->Free(memory).ok());
}

TEST_F(DeviceRuntime, MemoryInStreamOrderNeedsNoWaitOfTheHost) {
  auto memory = stream_->MallocAsync(kBytes);
  ASSERT_TRUE(memory.ok());
  ASSERT_TRUE(stream_->MemsetAsync(*memory, 0, kBytes).ok());
  LaunchAffine(*stream_, *memory, 1, 9);
  EXPECT_EQ(Read(*memory), std::vector<int32_t>(kCount, 9));
  EXPECT_TRUE(stream_->FreeAsync(*memory).ok());
  EXPECT_TRUE(stream_->Synchronize().ok());
}

TEST_F(DeviceRuntime, PinnedAndRegisteredMemoryIsTheDevicesToo) {
  auto pinned = machine_->MallocHost(kBytes);
  ASSERT_TRUE(pinned.ok());
  std::vector<int32_t> registered = Rising();
  ASSERT_TRUE(machine_->HostRegister(registered.data(), kBytes).ok());
  ASSERT_TRUE(stream_->MemcpyAsync(*pinned, registered.data(), kBytes).ok());
  LaunchAffine(*stream_, *pinned, 2, 0);
  ASSERT_TRUE(stream_->Synchronize().ok());
  EXPECT_EQ(static_cast<int32_t*>(*pinned)[kCount - 1], 2 * kCount);
  EXPECT_TRUE(machine_->HostUnregister(registered.data()).ok());
  EXPECT_TRUE(machine_->Free(*pinned).ok());
}

TEST_F(DeviceRuntime, RefusesADeviceThatIsNotThere) {
  const int beyond = machine_->num_devices();
  EXPECT_EQ(machine_->Malloc(beyond, 16).status().code(),
            absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(GpuStream::Create(machine_, beyond).status().code(),
            absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(machine_->DeviceSynchronize(-1).code(), absl::StatusCode::kInvalidArgument);
}

TEST_F(DeviceRuntime, ALaunchThatNoDeviceTakesIsAnErrorOfTheStream) {
  void* const memory = Filled();
  Launch(*stream_, {.grid = {1}, .block = {kMaxBlockThreads + 1}},
         AffineKernel{{static_cast<int32_t*>(memory), kCount}, 1, 1});
  EXPECT_FALSE(stream_->Synchronize().ok());
}

}  // namespace
}  // namespace tessera::kernels::cuda
