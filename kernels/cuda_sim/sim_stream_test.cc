// Streams, events, graphs, pinned memory and several devices: what the CUDA runtime
// promises holds under every seed, and what it does not promise is found.
#include "kernels/cuda_sim/sim_stream.h"

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <memory>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

#include "common/check.h"
#include "kernels/cuda_sim/call_fault.h"
#include "kernels/cuda_sim/sim_machine.h"
#include "kernels/cuda_sim/sim_thread.h"

namespace tessera::kernels::cuda_sim {
namespace {

using cuda::GlobalSpan;
using testing::HasSubstr;

constexpr uint64_t kSeeds = 20;

class Machine {
 public:
  explicit Machine(uint64_t seed, int num_devices = 1)
      : machine_(std::make_shared<SimMachine>(
            SimOptions{.seed = seed, .num_devices = num_devices})) {}

  std::unique_ptr<SimStream> Stream(int device = 0) {
    auto stream = SimStream::Create(machine_, device);
    TESSERA_CHECK(stream.ok());
    return std::move(*stream);
  }
  SimEvent Event() { return SimEvent(machine_); }
  GlobalSpan<int32_t> Ints(int64_t size, int device = 0) {
    auto memory = machine_->Malloc(device, static_cast<size_t>(size) * sizeof(int32_t));
    TESSERA_CHECK(memory.ok());
    return {static_cast<int32_t*>(*memory), size};
  }
  int32_t* Pinned(int64_t size) {
    auto memory = machine_->MallocHost(static_cast<size_t>(size) * sizeof(int32_t));
    TESSERA_CHECK(memory.ok());
    return static_cast<int32_t*>(*memory);
  }
  SimMachine& operator*() { return *machine_; }
  SimMachine* operator->() { return machine_.get(); }
  bool Found(FindingKind kind) const {
    const std::vector<Finding> findings = machine_->findings();
    return std::any_of(findings.begin(), findings.end(),
                       [&](const Finding& finding) { return finding.kind == kind; });
  }

 private:
  std::shared_ptr<SimMachine> machine_;
};

// x[0] = x[0] * factor + add.
void MulAdd(SimStream& stream, GlobalSpan<int32_t> x, int32_t factor, int32_t add) {
  ASSERT_TRUE(stream
                  .LaunchKernel("MulAddKernel", {},
                                [=](SimThread& thread) {
                                  thread.Store(x, 0, thread.Load(x, 0) * factor + add);
                                })
                  .ok());
}

void Set(SimStream& stream, GlobalSpan<int32_t> x, int32_t value) {
  ASSERT_TRUE(stream
                  .LaunchKernel("SetKernel", {},
                                [=](SimThread& thread) { thread.Store(x, 0, value); })
                  .ok());
}

int32_t Get(SimStream& stream, GlobalSpan<int32_t> x) {
  int32_t value = 0;
  EXPECT_TRUE(stream.MemcpyAsync(&value, x.data, sizeof(value)).ok());
  return value;
}

TEST(SimStream, OperationsOfAStreamRunInOrderUnderEverySeed) {
  for (uint64_t seed = 1; seed <= kSeeds; ++seed) {
    Machine machine(seed);
    const auto stream = machine.Stream();
    const auto x = machine.Ints(1);
    Set(*stream, x, 1);
    MulAdd(*stream, x, 10, 2);
    MulAdd(*stream, x, 10, 3);
    EXPECT_EQ(Get(*stream, x), 123);
    EXPECT_TRUE(machine->status().ok()) << machine->status();
  }
}

TEST(SimStream, StreamsRunInAnyOrderAndEventsPutOneInIt) {
  std::set<int32_t> results;
  for (uint64_t seed = 1; seed <= kSeeds; ++seed) {
    for (const bool ordered : {false, true}) {
      Machine machine(seed);
      const auto first = machine.Stream();
      const auto second = machine.Stream();
      const auto x = machine.Ints(1);
      Set(*first, x, 1);
      ASSERT_TRUE(first->Synchronize().ok());
      SimEvent event = machine.Event();
      MulAdd(*first, x, 10, 2);
      ASSERT_TRUE(first->Record(event).ok());
      if (ordered) {
        ASSERT_TRUE(second->Wait(event).ok());
      }
      MulAdd(*second, x, 10, 3);
      static_cast<void>(first->Synchronize());
      static_cast<void>(second->Synchronize());
      int32_t result = 0;
      static_cast<void>(first->MemcpyAsync(&result, x.data, sizeof(result)));
      if (ordered) {
        EXPECT_EQ(result, 123);
        EXPECT_TRUE(machine->status().ok()) << machine->status();
      } else {
        results.insert(result);
        EXPECT_TRUE(machine.Found(FindingKind::kStreamDependency)) << "seed " << seed;
        EXPECT_THAT(machine->status().ToString(), HasSubstr("MulAddKernel"));
      }
    }
  }
  EXPECT_EQ(results, (std::set<int32_t>{123, 132}));
}

TEST(SimStream, ASynchronisationOfTheHostOrdersStreamsToo) {
  for (uint64_t seed = 1; seed <= kSeeds; ++seed) {
    Machine machine(seed);
    const auto first = machine.Stream();
    const auto second = machine.Stream();
    const auto x = machine.Ints(1);
    Set(*first, x, 1);
    SimEvent event = machine.Event();
    ASSERT_TRUE(first->Record(event).ok());
    ASSERT_TRUE(event.Synchronize().ok());
    MulAdd(*second, x, 10, 2);
    ASSERT_TRUE(machine->DeviceSynchronize(0).ok());
    EXPECT_EQ(Get(*first, x), 12);
    EXPECT_TRUE(machine->status().ok()) << machine->status();
  }
}

TEST(SimStream, PageableMemoryIsCopiedAtOnceAndPinnedMemoryLater) {
  bool later = false;
  for (uint64_t seed = 1; seed <= kSeeds; ++seed) {
    Machine machine(seed);
    const auto stream = machine.Stream();
    const auto x = machine.Ints(2);
    int32_t* const pinned = machine.Pinned(1);
    int32_t pageable = 5;
    *pinned = 5;
    ASSERT_TRUE(stream->MemcpyAsync(x.data, &pageable, 4).ok());
    ASSERT_TRUE(stream->MemcpyAsync(x.data + 1, pinned, 4).ok());
    pageable = 6;
    *pinned = 6;
    EXPECT_EQ(Get(*stream, x), 5);
    later = later || Get(*stream, x.Slice(1, 1)) == 6;
    EXPECT_TRUE(machine->Free(pinned).ok());
  }
  EXPECT_TRUE(later);
}

TEST(SimStream, CopiesOfRowsKeepTheirPitches) {
  Machine machine(1);
  const auto stream = machine.Stream();
  const auto x = machine.Ints(8);
  const std::vector<int32_t> rows = {1, 2, 3, 4, 5, 6};
  ASSERT_TRUE(stream->MemsetAsync(x.data, 0, 32).ok());
  ASSERT_TRUE(
      stream
          ->Memcpy2DAsync(x.data, rows.data(),
                          {.row_bytes = 8, .rows = 2, .to_pitch = 16, .from_pitch = 12})
          .ok());
  std::vector<int32_t> seen(8);
  ASSERT_TRUE(stream->MemcpyAsync(seen.data(), x.data, 32).ok());
  EXPECT_EQ(seen, (std::vector<int32_t>{1, 2, 0, 0, 4, 5, 0, 0}));
  EXPECT_TRUE(machine->status().ok()) << machine->status();
}

TEST(SimStream, MemoryOfAStreamLivesFromItsAllocationToItsFree) {
  for (uint64_t seed = 1; seed <= kSeeds; ++seed) {
    Machine machine(seed);
    const auto stream = machine.Stream();
    auto memory = stream->MallocAsync(4);
    ASSERT_TRUE(memory.ok());
    const GlobalSpan<int32_t> x = {static_cast<int32_t*>(*memory), 1};
    Set(*stream, x, 7);
    EXPECT_EQ(Get(*stream, x), 7);
    ASSERT_TRUE(stream->FreeAsync(x.data).ok());
    ASSERT_TRUE(stream->Synchronize().ok());
    MulAdd(*stream, x, 1, 1);
    EXPECT_FALSE(stream->Synchronize().ok());
    EXPECT_TRUE(machine.Found(FindingKind::kUseAfterFree));
    EXPECT_EQ(machine->findings()[0].kernel, "MulAddKernel");
  }
}

TEST(PlantedBug, AFreeThatAnotherStreamsKernelDoesNotPrecedeIsFound) {
  for (uint64_t seed = 1; seed <= kSeeds; ++seed) {
    Machine machine(seed);
    const auto owner = machine.Stream();
    const auto user = machine.Stream();
    auto memory = owner->MallocAsync(4);
    ASSERT_TRUE(memory.ok());
    const GlobalSpan<int32_t> x = {static_cast<int32_t*>(*memory), 1};
    ASSERT_TRUE(owner->Synchronize().ok());
    Set(*user, x, 1);
    ASSERT_TRUE(owner->FreeAsync(x.data).ok());
    static_cast<void>(owner->Synchronize());
    static_cast<void>(user->Synchronize());
    EXPECT_TRUE(machine.Found(FindingKind::kUseAfterFree) ||
                machine.Found(FindingKind::kStreamDependency))
        << "seed " << seed;
  }
}

TEST(SimStream, AllocationsBeyondTheDeviceAreRefused) {
  Machine machine(1);
  EXPECT_EQ(machine->Malloc(0, size_t{5} << 30).status().code(),
            absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(machine->Malloc(1, 16).status().code(), absl::StatusCode::kInvalidArgument);
  const auto x = machine.Ints(1);
  EXPECT_TRUE(machine->Free(x.data).ok());
  EXPECT_EQ(machine->Free(x.data).code(), absl::StatusCode::kInvalidArgument);
}

TEST(SimStream, ADeviceMayNotUseTheMemoryOfAnother) {
  Machine machine(1, 2);
  const auto stream = machine.Stream(1);
  Set(*stream, machine.Ints(1, 0), 1);
  EXPECT_FALSE(stream->Synchronize().ok());
  EXPECT_TRUE(machine.Found(FindingKind::kOutOfBounds));
}

TEST(SimStream, EventsOrderStreamsOfTwoDevices) {
  for (uint64_t seed = 1; seed <= kSeeds; ++seed) {
    Machine machine(seed, 2);
    const auto first = machine.Stream(0);
    const auto second = machine.Stream(1);
    int32_t* const pinned = machine.Pinned(1);
    const auto x = machine.Ints(1, 0);
    const auto y = machine.Ints(1, 1);
    Set(*first, x, 41);
    ASSERT_TRUE(first->MemcpyAsync(pinned, x.data, 4).ok());
    SimEvent event = machine.Event();
    ASSERT_TRUE(first->Record(event).ok());
    ASSERT_TRUE(second->Wait(event).ok());
    ASSERT_TRUE(second->MemcpyAsync(y.data, pinned, 4).ok());
    MulAdd(*second, y, 1, 1);
    EXPECT_EQ(Get(*second, y), 42);
    EXPECT_TRUE(machine->status().ok()) << machine->status();
  }
}

// ---- graphs ----

TEST(SimGraph, ReplaysWhatWasCapturedWithoutRunningItBefore) {
  for (uint64_t seed = 1; seed <= kSeeds; ++seed) {
    Machine machine(seed);
    const auto stream = machine.Stream();
    const auto side = machine.Stream();
    const auto x = machine.Ints(1);
    const auto y = machine.Ints(1);
    Set(*stream, x, 1);
    Set(*stream, y, 0);
    ASSERT_TRUE(stream->BeginCapture().ok());
    SimEvent fork = machine.Event();
    SimEvent join = machine.Event();
    MulAdd(*stream, x, 2, 0);
    ASSERT_TRUE(stream->Record(fork).ok());
    ASSERT_TRUE(side->Wait(fork).ok());
    MulAdd(*side, y, 1, 1);
    ASSERT_TRUE(side->Record(join).ok());
    MulAdd(*stream, x, 1, 1);
    ASSERT_TRUE(stream->Wait(join).ok());
    auto graph = stream->EndCapture();
    ASSERT_TRUE(graph.ok()) << graph.status();
    EXPECT_EQ(Get(*stream, x), 1);
    for (int i = 0; i < 3; ++i) {
      ASSERT_TRUE(stream->Launch(*graph).ok());
    }
    EXPECT_EQ(Get(*stream, x), 15);  // 2 x + 1, three times
    EXPECT_EQ(Get(*stream, y), 3);
    EXPECT_TRUE(machine->status().ok()) << machine->status();
  }
}

TEST(SimGraph, AMissingEdgeInsideAGraphIsFound) {
  for (uint64_t seed = 1; seed <= kSeeds; ++seed) {
    Machine machine(seed);
    const auto stream = machine.Stream();
    const auto side = machine.Stream();
    const auto x = machine.Ints(1);
    Set(*stream, x, 1);
    ASSERT_TRUE(stream->BeginCapture().ok());
    SimEvent fork = machine.Event();
    SimEvent join = machine.Event();
    ASSERT_TRUE(stream->Record(fork).ok());
    ASSERT_TRUE(side->Wait(fork).ok());
    MulAdd(*side, x, 2, 0);
    MulAdd(*stream, x, 1, 1);  // beside it
    ASSERT_TRUE(side->Record(join).ok());
    ASSERT_TRUE(stream->Wait(join).ok());
    auto graph = stream->EndCapture();
    ASSERT_TRUE(graph.ok());
    ASSERT_TRUE(stream->Launch(*graph).ok());
    EXPECT_FALSE(stream->Synchronize().ok());
    EXPECT_TRUE(machine.Found(FindingKind::kStreamDependency)) << "seed " << seed;
  }
}

TEST(SimGraph, CaptureRefusesWhatARuntimeRefuses) {
  Machine machine(1);
  const auto stream = machine.Stream();
  const auto side = machine.Stream();
  const auto x = machine.Ints(1);
  int32_t pageable = 0;
  ASSERT_TRUE(stream->BeginCapture().ok());
  EXPECT_EQ(stream->Synchronize().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(stream->Query().status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(stream->MallocAsync(4).status().code(),
            absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(stream->MemcpyAsync(&pageable, x.data, 4).code(),
            absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(stream->BeginCapture().code(), absl::StatusCode::kFailedPrecondition);
  SimEvent fork = machine.Event();
  ASSERT_TRUE(stream->Record(fork).ok());
  ASSERT_TRUE(side->Wait(fork).ok());
  Set(*side, x, 1);  // never joined back
  EXPECT_EQ(stream->EndCapture().status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(side->EndCapture().status().code(), absl::StatusCode::kFailedPrecondition);
}

TEST(PlantedBug, AGraphWithFreedMemoryIsStale) {
  Machine machine(1);
  const auto stream = machine.Stream();
  const auto x = machine.Ints(1);
  ASSERT_TRUE(stream->BeginCapture().ok());
  Set(*stream, x, 1);
  auto graph = stream->EndCapture();
  ASSERT_TRUE(graph.ok());
  ASSERT_TRUE(stream->Launch(*graph).ok());
  ASSERT_TRUE(stream->Synchronize().ok());
  ASSERT_TRUE(machine->Free(x.data).ok());
  const auto other = machine.Ints(1);  // a GPU might have put it at the same address
  ASSERT_TRUE(stream->Launch(*graph).ok());
  EXPECT_FALSE(stream->Synchronize().ok());
  EXPECT_TRUE(machine.Found(FindingKind::kStaleGraphArgument));
  EXPECT_THAT(machine->status().ToString(),
              HasSubstr("stale graph argument in SetKernel"));
  EXPECT_NE(other.data, x.data);
}

TEST(SimStream, LaunchesAreCounted) {
  Machine machine(1);
  const auto stream = machine.Stream();
  const auto x = machine.Ints(1);
  EXPECT_EQ(machine->num_launches(), 0U);
  Set(*stream, x, 2);
  EXPECT_EQ(machine->num_launches(), 1U);
  ASSERT_TRUE(stream->BeginCapture().ok());
  Set(*stream, x, 3);
  const auto graph = stream->EndCapture();
  ASSERT_TRUE(graph.ok());
  EXPECT_EQ(machine->num_launches(), 2U);
  ASSERT_TRUE(stream->Launch(*graph).ok());
  EXPECT_EQ(Get(*stream, x), 3);
  EXPECT_EQ(machine->num_launches(), 2U) << "neither a graph nor a copy is a launch";
}

TEST(CallFault, IsOfItsKindAndThreadOnceSoManyCallsWentWell) {
  Machine machine(1);
  const auto stream = machine.Stream();
  const auto x = machine.Ints(1);
  const int32_t values[] = {1, 2, 3};
  const auto copy = [&](const int32_t& value) {
    return stream->MemcpyAsync(x.data, &value, sizeof(value)).code();
  };
  {
    const CallFault fault(CallFault::Call::kMemcpy, absl::InternalError("planted"), 1);
    EXPECT_EQ(copy(values[0]), absl::StatusCode::kOk);
    EXPECT_EQ(copy(values[1]), absl::StatusCode::kInternal);
    EXPECT_EQ(copy(values[1]), absl::StatusCode::kInternal);
    std::thread([&] { EXPECT_EQ(copy(values[2]), absl::StatusCode::kOk); }).join();
    EXPECT_TRUE(stream->Synchronize().ok()) << "a copy that failed is not enqueued";
  }
  EXPECT_EQ(Get(*stream, x), 3);
}

TEST(PlantedBug, AGraphWithAnOldValueIsStale) {
  Machine machine(1);
  const auto stream = machine.Stream();
  const auto x = machine.Ints(1);
  int32_t num_rows = 3;
  const auto launch = [&] {
    const cuda::CapturedValue<int32_t> rows(&num_rows);
    ASSERT_TRUE(stream
                    ->LaunchKernel(
                        "RowsKernel", {},
                        [=](SimThread& thread) { thread.Store(x, 0, thread.Read(rows)); })
                    .ok());
  };
  ASSERT_TRUE(stream->BeginCapture().ok());
  launch();
  auto graph = stream->EndCapture();
  ASSERT_TRUE(graph.ok());
  ASSERT_TRUE(stream->Launch(*graph).ok());
  ASSERT_TRUE(stream->Synchronize().ok());
  num_rows = 4;
  launch();  // by value: no graph, nothing stale
  EXPECT_EQ(Get(*stream, x), 4);
  ASSERT_TRUE(stream->Launch(*graph).ok());
  EXPECT_FALSE(stream->Synchronize().ok());
  EXPECT_TRUE(machine.Found(FindingKind::kStaleGraphArgument));
}

}  // namespace
}  // namespace tessera::kernels::cuda_sim
