// Rows that the host gathers while the copy waits for them: in order, over both
// generations, from another thread and inside a graph; and what becomes of a step whose
// rows do not come.
#include "kernels/cuda/engram_rows/staged_rows.h"

#include <algorithm>
#include <cstdint>
#include <memory>
#include <thread>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "gtest/gtest.h"

#include "common/check.h"
#include "common/clock.h"
#include "kernels/cuda_sim/call_fault.h"
#include "kernels/cuda_sim/sim_machine.h"

namespace tessera::kernels::cuda {
namespace {

using cuda_sim::CallFault;

constexpr uint64_t kSeeds = 12;
constexpr size_t kBytes = 96;

class Staging {
 public:
  explicit Staging(uint64_t seed) {
    machine_ = *GpuMachine::Create({.seed = seed});
    stream_ = *GpuStream::Create(machine_, 0);
    rows_ = *StagedRows::Create(machine_, {.bytes = kBytes}, &clock_);
    device_ = *machine_->Malloc(0, kBytes);
  }

  int Begin() {
    auto begun = rows_->Begin(Deadline());
    TESSERA_CHECK(begun.ok());
    return *begun;
  }
  void Enqueue(int generation) {
    ASSERT_TRUE(rows_->Enqueue(*stream_, generation, kBytes, device_).ok());
    ASSERT_TRUE(rows_->Launched(*stream_, generation).ok());
  }
  void Fill(int generation, int value) {
    rows_->Fill(generation);
    std::ranges::fill(rows_->host(generation), static_cast<std::byte>(value));
  }
  // Turns that go well, one after the other.
  void ExpectWholeSteps(int count) {
    for (int step = 1; step <= count; ++step) {
      const int next = Begin();
      Enqueue(next);
      Fill(next, step);
      rows_->Arrived(next);
      EXPECT_EQ(OnDevice(), All(step));
    }
  }
  absl::Time Deadline() { return clock_.Now() + absl::Milliseconds(5); }
  // What is on the device, when all that is enqueued has run.
  std::vector<std::byte> OnDevice() {
    std::vector<std::byte> seen(kBytes);
    EXPECT_TRUE(stream_->MemcpyAsync(seen.data(), device_, kBytes).ok());
    EXPECT_TRUE(stream_->Synchronize().ok()) << machine_->status();
    return seen;
  }
  static std::vector<std::byte> All(int value) {
    return std::vector<std::byte>(kBytes, static_cast<std::byte>(value));
  }

  SimulatedClock clock_;
  std::shared_ptr<GpuMachine> machine_;
  std::unique_ptr<GpuStream> stream_;
  std::unique_ptr<StagedRows> rows_;
  void* device_ = nullptr;
};

TEST(StagedRows, ArriveAfterTheirCopyIsEnqueuedStepAfterStep) {
  for (uint64_t seed = 1; seed <= kSeeds; ++seed) {
    Staging staging(seed);
    for (int step = 1; step <= 5; ++step) {
      const int generation = staging.Begin();
      EXPECT_EQ(generation, (step + 1) % StagedRows::kGenerations);
      staging.Enqueue(generation);
      staging.Fill(generation, step);
      staging.rows_->Arrived(generation);
      EXPECT_EQ(staging.OnDevice(), Staging::All(step));
    }
  }
}

TEST(StagedRows, OfTheNextStepAreGatheredBeforeThisStepsCopyIsOver) {
  for (uint64_t seed = 1; seed <= kSeeds; ++seed) {
    Staging staging(seed);
    const int first = staging.Begin();
    staging.Enqueue(first);
    const int second = staging.Begin();
    staging.Fill(second, 2);
    staging.rows_->Arrived(second);  // before its own copy, and before the first's rows
    staging.Fill(first, 1);
    staging.rows_->Arrived(first);
    staging.Enqueue(second);
    EXPECT_EQ(staging.OnDevice(), Staging::All(2));
    EXPECT_TRUE(staging.machine_->status().ok()) << staging.machine_->status();
  }
}

TEST(StagedRows, MayComeFromAnotherThread) {
  for (uint64_t seed = 1; seed <= kSeeds; ++seed) {
    Staging staging(seed);
    const int generation = staging.Begin();
    staging.Enqueue(generation);
    std::thread gatherer([&] {
      staging.Fill(generation, 7);
      staging.rows_->Arrived(generation);
    });
    EXPECT_TRUE(staging.rows_->Await(generation, absl::InfiniteFuture()).ok());
    gatherer.join();
    EXPECT_EQ(staging.OnDevice(), Staging::All(7));
  }
}

TEST(StagedRows, OfAGraphAreWaitedForAtEachReplay) {
  for (uint64_t seed = 1; seed <= kSeeds; ++seed) {
    Staging staging(seed);
    std::vector<GpuGraph> graphs;
    for (int generation = 0; generation < StagedRows::kGenerations; ++generation) {
      ASSERT_TRUE(staging.stream_->BeginCapture().ok());
      ASSERT_TRUE(
          staging.rows_->Enqueue(*staging.stream_, generation, kBytes, staging.device_)
              .ok());
      auto graph = staging.stream_->EndCapture();
      ASSERT_TRUE(graph.ok()) << graph.status();
      graphs.push_back(*std::move(graph));
    }
    for (int step = 1; step <= 5; ++step) {
      const int generation = staging.Begin();
      ASSERT_TRUE(staging.stream_->Launch(graphs[static_cast<size_t>(generation)]).ok());
      ASSERT_TRUE(staging.rows_->Launched(*staging.stream_, generation).ok());
      staging.Fill(generation, step);
      staging.rows_->Arrived(generation);
      EXPECT_EQ(staging.OnDevice(), Staging::All(step));
    }
  }
}

TEST(StagedRows, ThatDoNotComeAreAnErrorAtTheDeadlineAndNoHang) {
  for (uint64_t seed = 1; seed <= kSeeds; ++seed) {
    Staging staging(seed);
    const int generation = staging.Begin();
    staging.Enqueue(generation);
    const absl::Time deadline = staging.Deadline();
    EXPECT_EQ(staging.rows_->Await(generation, deadline).code(),
              absl::StatusCode::kDeadlineExceeded);
    EXPECT_EQ(staging.clock_.Now(), deadline);
    staging.rows_->Abandon(generation);
    EXPECT_EQ(staging.OnDevice(), Staging::All(0xff)) << "nobody takes them for rows";
    staging.ExpectWholeSteps(3);
  }
}

TEST(StagedRows, BeginTheirNextTurnOnceTheirLastCopyIsOver) {
  for (uint64_t seed = 1; seed <= kSeeds; ++seed) {
    Staging staging(seed);
    const int first = staging.Begin();
    staging.Enqueue(first);
    const int second = staging.Begin();
    staging.Enqueue(second);
    const absl::Time deadline = staging.Deadline();
    EXPECT_EQ(staging.rows_->Begin(deadline).status().code(),
              absl::StatusCode::kDeadlineExceeded);
    EXPECT_EQ(staging.clock_.Now(), deadline) << "the first still waits for its rows";
    staging.rows_->Abandon(first);
    EXPECT_EQ(staging.Begin(), first);
    staging.Enqueue(first);
    for (const int generation : {second, first}) {
      staging.Fill(generation, generation + 1);
      staging.rows_->Arrived(generation);
    }
    EXPECT_EQ(staging.OnDevice(), Staging::All(first + 1));
  }
}

TEST(StagedRows, AGatherThatFailsLetsTheStreamGo) {
  Staging staging(1);
  const int generation = staging.Begin();
  staging.Enqueue(generation);
  staging.Fill(generation, 1);  // half of it, say
  staging.rows_->Abandon(generation);
  EXPECT_EQ(staging.OnDevice(), Staging::All(0xff));
  staging.rows_->Abandon(generation);  // has no effect any more
  EXPECT_TRUE(staging.rows_->Await(generation, staging.Deadline()).ok());
}

TEST(StagedRows, ThatArrivedForAStepThatFailedBeforeItsCopyAreNotTheNextSteps) {
  for (uint64_t seed = 1; seed <= kSeeds; ++seed) {
    Staging staging(seed);
    const int unused = staging.Begin();
    staging.Fill(unused, 1);
    staging.rows_->Arrived(unused);  // and nothing is enqueued
    const int between = staging.Begin();
    staging.Enqueue(between);
    staging.Fill(between, 2);
    staging.rows_->Arrived(between);
    ASSERT_EQ(staging.Begin(), unused);
    staging.Enqueue(unused);
    GpuEvent behind(staging.machine_);
    ASSERT_TRUE(staging.stream_->Record(behind).ok());
    EXPECT_EQ(behind.Query().value_or(true), false) << "it waits for its own rows";
    staging.Fill(unused, 3);
    staging.rows_->Arrived(unused);
    EXPECT_EQ(staging.OnDevice(), Staging::All(3));
  }
}

TEST(StagedRows, ThatComeLateAreThoseOfTheirOwnTurn) {
  for (uint64_t seed = 1; seed <= kSeeds; ++seed) {
    Staging staging(seed);
    const int late = staging.Begin();
    staging.Enqueue(late);
    EXPECT_EQ(staging.rows_->Await(late, staging.Deadline()).code(),
              absl::StatusCode::kDeadlineExceeded);
    const int between = staging.Begin();
    staging.Enqueue(between);
    // The gatherer of the first may still write, so nobody else gets its memory or flag.
    EXPECT_EQ(staging.rows_->Begin(staging.Deadline()).status().code(),
              absl::StatusCode::kDeadlineExceeded);
    staging.Fill(late, 1);
    staging.rows_->Arrived(late);
    staging.Fill(between, 2);
    staging.rows_->Arrived(between);
    EXPECT_EQ(staging.OnDevice(), Staging::All(2));
    EXPECT_EQ(staging.Begin(), late);
    staging.Enqueue(late);
    GpuEvent behind(staging.machine_);
    ASSERT_TRUE(staging.stream_->Record(behind).ok());
    EXPECT_EQ(behind.Query().value_or(true), false) << "it waits for its own rows";
    staging.Fill(late, 3);
    staging.rows_->Arrived(late);
    EXPECT_EQ(staging.OnDevice(), Staging::All(3));
  }
}

TEST(StagedRows, OfATurnWithoutACopyAreNotAnothersBeforeTheirGathererEnded) {
  Staging staging(1);
  const int unused = staging.Begin();
  staging.Enqueue(staging.Begin());
  EXPECT_EQ(staging.rows_->Begin(staging.Deadline()).status().code(),
            absl::StatusCode::kDeadlineExceeded);
  staging.rows_->Abandon(unused);
  EXPECT_EQ(staging.Begin(), unused);
}

// The wait is enqueued, and then the copy or the record behind it fails.
TEST(StagedRows, OfAStepThatFailsBehindItsWaitHoldNoStream) {
  for (const auto call : {CallFault::Call::kMemcpy, CallFault::Call::kRecord}) {
    for (uint64_t seed = 1; seed <= kSeeds; ++seed) {
      Staging staging(seed);
      staging.ExpectWholeSteps(StagedRows::kGenerations);  // so there are older records
      const int generation = staging.Begin();
      {
        const CallFault fault(call, absl::InternalError("planted"));
        absl::Status status =
            staging.rows_->Enqueue(*staging.stream_, generation, kBytes, staging.device_);
        if (status.ok()) {
          status = staging.rows_->Launched(*staging.stream_, generation);
        }
        EXPECT_EQ(status.message(), "planted");
      }
      staging.rows_->Abandon(generation);
      EXPECT_TRUE(staging.stream_->Synchronize().ok()) << staging.machine_->status();
      staging.ExpectWholeSteps(3);
    }
  }
}

TEST(StagedRows, LowerNoFlagThatTheirStreamMayNotHaveSeen) {
  for (uint64_t seed = 1; seed <= kSeeds; ++seed) {
    Staging staging(seed);
    const int generation = staging.Begin();
    {
      const CallFault fault(CallFault::Call::kRecord, absl::InternalError("planted"));
      ASSERT_TRUE(
          staging.rows_->Enqueue(*staging.stream_, generation, kBytes, staging.device_)
              .ok());
      ASSERT_FALSE(staging.rows_->Launched(*staging.stream_, generation).ok());
      staging.rows_->Abandon(generation);
      staging.rows_->Abandon(staging.Begin());
      EXPECT_EQ(staging.rows_->Begin(staging.Deadline()).status().message(), "planted")
          << "nothing tells where the stream is";
    }
    EXPECT_EQ(staging.Begin(), generation);
    EXPECT_EQ(staging.OnDevice(), Staging::All(0xff));
  }
}

TEST(StagedRows, OfAStepThatFailedAreAbandonedByTheirOwnersEnd) {
  for (const auto call : {CallFault::Call::kMemcpy, CallFault::Call::kRecord}) {
    Staging staging(1);
    const int generation = staging.Begin();
    {
      const CallFault fault(call, absl::InternalError("planted"));
      const bool is_enqueued =
          staging.rows_->Enqueue(*staging.stream_, generation, kBytes, staging.device_)
              .ok();
      EXPECT_FALSE(is_enqueued &&
                   staging.rows_->Launched(*staging.stream_, generation).ok());
      staging.rows_ = nullptr;
    }
    EXPECT_TRUE(staging.stream_->Synchronize().ok()) << staging.machine_->status();
  }
}

TEST(StagedRows, ThatAreUnderWayAreAbandonedByTheirOwnersEnd) {
  Staging staging(1);
  staging.Enqueue(staging.Begin());
  staging.rows_ = nullptr;
  EXPECT_TRUE(staging.machine_->status().ok()) << staging.machine_->status();
  EXPECT_EQ(staging.OnDevice(), Staging::All(0xff));
}

// What the class is for: without a Begin, the host fills what a copy may still read.
TEST(PlantedBug, AGenerationThatIsFilledWithoutItsTurnIsFound) {
  Staging staging(1);
  const int generation = staging.Begin();
  staging.Enqueue(generation);
  staging.Fill(generation, 1);
  staging.rows_->Arrived(generation);
  staging.Fill(generation, 2);
  EXPECT_FALSE(staging.stream_->Synchronize().ok());
}

}  // namespace
}  // namespace tessera::kernels::cuda
