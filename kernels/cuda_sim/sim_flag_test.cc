// Flags, writes of the host and memory that is registered for reads: what a stream may
// rely on holds under every seed, and what it may not is found under every seed.
#include "kernels/cuda_sim/sim_flag.h"

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <memory>
#include <utility>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

#include "common/check.h"
#include "kernels/cuda_sim/sim_machine.h"
#include "kernels/cuda_sim/sim_stream.h"
#include "kernels/cuda_sim/sim_thread.h"

namespace tessera::kernels::cuda_sim {
namespace {

using cuda::GlobalSpan;
using testing::HasSubstr;

constexpr uint64_t kSeeds = 20;
constexpr int64_t kCount = 8;
constexpr size_t kBytes = kCount * sizeof(int32_t);

// A machine with a stream, a flag, staging memory of the host and memory of the device.
struct Rig {
  explicit Rig(uint64_t seed)
      : machine(std::make_shared<SimMachine>(SimOptions{.seed = seed})) {
    auto made_stream = SimStream::Create(machine, 0);
    auto made_flag = SimFlag::Create(machine);
    const auto host = machine->MallocHost(kBytes);
    const auto device = machine->Malloc(0, kBytes);
    TESSERA_CHECK(made_stream.ok() && made_flag.ok() && host.ok() && device.ok());
    stream = std::move(*made_stream);
    flag = std::move(*made_flag);
    staging = static_cast<int32_t*>(*host);
    rows = {static_cast<int32_t*>(*device), kCount};
  }

  // What a gatherer does, up to its flag.
  void Gather(int32_t value) const {
    machine->HostWrites(staging, kBytes);
    std::fill_n(staging, kCount, value);
  }
  void CopyRows() const {
    ASSERT_TRUE(stream->MemcpyAsync(rows.data, staging, kBytes).ok());
  }
  int32_t LastRow() const {
    int32_t value = 0;
    EXPECT_TRUE(stream->MemcpyAsync(&value, rows.data + kCount - 1, sizeof(value)).ok());
    return value;
  }
  bool Found(FindingKind kind) const {
    const std::vector<Finding> findings = machine->findings();
    return std::any_of(findings.begin(), findings.end(),
                       [&](const Finding& finding) { return finding.kind == kind; });
  }

  std::shared_ptr<SimMachine> machine;
  std::unique_ptr<SimStream> stream;
  std::unique_ptr<SimFlag> flag;
  int32_t* staging = nullptr;
  GlobalSpan<int32_t> rows;
};

// out = sum of `count` values of x.
void Sum(SimStream& stream, GlobalSpan<const int32_t> x, int64_t count,
         GlobalSpan<int32_t> out) {
  ASSERT_TRUE(stream
                  .LaunchKernel("SumKernel", {},
                                [=](SimThread& thread) {
                                  int32_t sum = 0;
                                  for (int64_t i = 0; i < count; ++i) {
                                    sum += thread.Load(x, i);
                                  }
                                  thread.Store(out, 0, sum);
                                })
                  .ok());
}

TEST(SimFlag, RowsThatComeAfterTheWaitIsEnqueuedAreRead) {
  for (uint64_t seed = 1; seed <= kSeeds; ++seed) {
    const Rig rig(seed);
    for (int32_t round = 1; round <= 3; ++round) {
      ASSERT_TRUE(rig.stream->WaitFlag(*rig.flag, 1).ok());
      rig.CopyRows();
      rig.Gather(round);
      rig.flag->Store(1);
      EXPECT_EQ(rig.LastRow(), round);
      rig.flag->Store(0);
    }
    EXPECT_TRUE(rig.machine->status().ok()) << rig.machine->status();
  }
}

TEST(SimFlag, RisingValuesNeedNoReset) {
  for (uint64_t seed = 1; seed <= kSeeds; ++seed) {
    const Rig rig(seed);
    for (int32_t round = 1; round <= 3; ++round) {
      ASSERT_TRUE(rig.stream->WaitFlag(*rig.flag, static_cast<uint64_t>(round)).ok());
      rig.CopyRows();
      rig.Gather(round);
      rig.flag->Store(static_cast<uint64_t>(round));
      EXPECT_EQ(rig.LastRow(), round);
    }
    EXPECT_TRUE(rig.machine->status().ok()) << rig.machine->status();
  }
}

TEST(SimFlag, AFlagThatNobodyStoresIsAnErrorAndNoHang) {
  Rig rig(1);
  SimEvent event(rig.machine);
  ASSERT_TRUE(rig.stream->WaitFlag(*rig.flag, 3).ok());
  ASSERT_TRUE(rig.stream->Record(event).ok());
  rig.flag->Store(2);
  EXPECT_EQ(event.Query().value_or(true), false);
  EXPECT_TRUE(rig.machine->status().ok()) << "who asks does not wait";
  const absl::Status status = rig.stream->Synchronize();
  EXPECT_EQ(status.code(), absl::StatusCode::kInternal);
  EXPECT_THAT(status.ToString(), HasSubstr("a flag of 3, which holds 2"));
  rig.flag->Store(3);  // for the stream to end
}

TEST(PlantedBug, RowsReadWithoutTheFlagAreFound) {
  for (uint64_t seed = 1; seed <= kSeeds; ++seed) {
    const Rig rig(seed);
    rig.CopyRows();
    rig.Gather(1);
    rig.flag->Store(1);
    static_cast<void>(rig.stream->Synchronize());
    EXPECT_TRUE(rig.Found(FindingKind::kStreamDependency)) << "seed " << seed;
  }
}

TEST(PlantedBug, RowsThatComeAfterTheirFlagAreFound) {
  for (uint64_t seed = 1; seed <= kSeeds; ++seed) {
    const Rig rig(seed);
    ASSERT_TRUE(rig.stream->WaitFlag(*rig.flag, 1).ok());
    rig.CopyRows();
    rig.flag->Store(1);
    rig.Gather(1);
    static_cast<void>(rig.stream->Synchronize());
    EXPECT_TRUE(rig.Found(FindingKind::kStreamDependency)) << "seed " << seed;
  }
}

// The flag of the generation before is still up, so the wait holds nobody back, whether
// or not the copy happens to come after the new rows.
TEST(PlantedBug, AFlagThatIsNotTakenDownBetweenGenerationsIsFound) {
  for (uint64_t seed = 1; seed <= kSeeds; ++seed) {
    const Rig rig(seed);
    for (int32_t round = 1; round <= 2; ++round) {
      EXPECT_TRUE(rig.machine->status().ok()) << rig.machine->status();
      ASSERT_TRUE(rig.stream->WaitFlag(*rig.flag, 1).ok());
      rig.CopyRows();
      rig.Gather(round);
      rig.flag->Store(1);
      static_cast<void>(rig.stream->Synchronize());
    }
    EXPECT_TRUE(rig.Found(FindingKind::kStreamDependency)) << "seed " << seed;
  }
}

TEST(PlantedBug, StagingThatIsFilledAgainBeforeItsCopyIsFound) {
  for (uint64_t seed = 1; seed <= kSeeds; ++seed) {
    const Rig rig(seed);
    ASSERT_TRUE(rig.stream->WaitFlag(*rig.flag, 1).ok());
    rig.CopyRows();
    rig.Gather(1);
    rig.flag->Store(1);
    rig.Gather(2);
    static_cast<void>(rig.stream->Synchronize());
    EXPECT_TRUE(rig.Found(FindingKind::kStreamDependency)) << "seed " << seed;
  }
}

TEST(PlantedBug, AFlagThatIsFreedBeforeTheStreamComesToItIsFound) {
  Rig rig(1);
  ASSERT_TRUE(rig.stream->BeginCapture().ok());
  ASSERT_TRUE(rig.stream->WaitFlag(*rig.flag, 1).ok());
  const auto graph = rig.stream->EndCapture();
  ASSERT_TRUE(graph.ok()) << graph.status();
  rig.flag = nullptr;
  ASSERT_TRUE(rig.stream->Launch(*graph).ok());
  static_cast<void>(rig.stream->Synchronize());
  EXPECT_TRUE(rig.Found(FindingKind::kStaleGraphArgument));
}

TEST(PlantedBug, AFlagThatIsFreedWhileAStreamWaitsIsAnError) {
  Rig rig(1);
  ASSERT_TRUE(rig.stream->WaitFlag(*rig.flag, 1).ok());
  rig.flag = nullptr;
  EXPECT_THAT(rig.machine->status().ToString(), HasSubstr("a flag of 1, which holds 0"));
}

TEST(ReadOnlyMemory, IsReadInPlaceAndBoundedByWhatWasRegistered) {
  for (const bool beyond : {false, true}) {
    const Rig rig(1);
    const std::vector<int32_t> table = {1, 2, 3, 4, 5, 6, 7, 8};
    const auto on_device = rig.machine->HostRegisterReadOnly(
        table.data(), (table.size() - 1) * sizeof(int32_t));
    ASSERT_TRUE(on_device.ok()) << on_device.status();
    Sum(*rig.stream, {static_cast<const int32_t*>(*on_device), kCount}, beyond ? 8 : 7,
        rig.rows);
    static_cast<void>(rig.stream->Synchronize());
    EXPECT_EQ(rig.Found(FindingKind::kOutOfBounds), beyond);
    EXPECT_EQ(rig.machine->status().ok(), !beyond) << rig.machine->status();
    EXPECT_EQ(rig.machine->HostUnregister(table.data()).ok(), !beyond);
  }
}

TEST(PlantedBug, AWriteToATableIsFoundAndDoesNotHappen) {
  for (const bool by_kernel : {false, true}) {
    const Rig rig(1);
    std::vector<int32_t> table(kCount, 5);
    ASSERT_TRUE(rig.machine->HostRegisterReadOnly(table.data(), kBytes).ok());
    const GlobalSpan<int32_t> span = {table.data(), kCount};
    if (by_kernel) {  // which has read it before
      Sum(*rig.stream, span, kCount, rig.rows);
      Sum(*rig.stream, span, 1, span);
    } else {
      ASSERT_TRUE(rig.stream->MemsetAsync(table.data(), 0, kBytes).ok());
    }
    static_cast<void>(rig.stream->Synchronize());
    EXPECT_TRUE(rig.Found(FindingKind::kReadOnlyMemory));
    EXPECT_EQ(table, std::vector<int32_t>(kCount, 5));
  }
}

TEST(PlantedBug, ATableThatIsRegisteredNoMoreIsFound) {
  for (const bool in_graph : {false, true}) {
    const Rig rig(1);
    const std::vector<int32_t> table(kCount, 5);
    ASSERT_TRUE(rig.machine->HostRegisterReadOnly(table.data(), kBytes).ok());
    const GlobalSpan<const int32_t> span = {table.data(), kCount};
    if (in_graph) {
      ASSERT_TRUE(rig.stream->BeginCapture().ok());
      Sum(*rig.stream, span, kCount, rig.rows);
      const auto graph = rig.stream->EndCapture();
      ASSERT_TRUE(graph.ok()) << graph.status();
      ASSERT_TRUE(rig.machine->HostUnregister(table.data()).ok());
      ASSERT_TRUE(rig.stream->Launch(*graph).ok());
    } else {
      ASSERT_TRUE(rig.machine->HostUnregister(table.data()).ok());
      Sum(*rig.stream, span, kCount, rig.rows);
    }
    static_cast<void>(rig.stream->Synchronize());
    EXPECT_TRUE(rig.Found(in_graph ? FindingKind::kStaleGraphArgument
                                   : FindingKind::kUseAfterFree));
  }
}

}  // namespace
}  // namespace tessera::kernels::cuda_sim
