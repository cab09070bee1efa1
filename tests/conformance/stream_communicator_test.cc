// The contract of StreamCommunicator and StreamWait over the simulated devices and their
// NCCL: the bits of the host's Communicator, eager and by graphs, and what ranks hear of
// one that is missing. Every rank is a thread on a device of its own, with all checks of
// the simulator on, and no case, faults included, may leave a finding.
#include "worker/comm/stream_communicator.h"

#include <cmath>
#include <cstring>
#include <functional>
#include <limits>
#include <memory>
#include <numeric>
#include <span>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/time/clock.h"
#include "gtest/gtest.h"

#include "common/clock.h"
#include "kernels/cuda/backend_stream.h"
#include "kernels/cuda/devices/simulated_devices.h"
#include "kernels/cuda_sim/sim_machine.h"
#include "kernels/local_devices.h"
#include "tests/conformance/rank_threads.h"
#include "tests/testing/status_matchers.h"
#include "worker/comm/host_stream_communicator.h"
#include "worker/comm/in_process/in_process_group.h"
#include "worker/comm/nccl/device_groups.h"
#include "worker/comm/stream_wait.h"

namespace tessera::worker {
namespace {

using kernels::DType;
using kernels::TensorView;
using kernels::cuda_sim::SimMachine;
using testing::IsOk;
using testing::StatusIs;

const CommOptions kGenerous = {.timeout = absl::Seconds(60)};
const CommOptions kShort = {.timeout = absl::Milliseconds(150)};

// Bytes of an NCCL group's staging memory: longer sums go a piece at a time.
constexpr int64_t kPiece = (1 << 20) / sizeof(float);

// As in communicator_conformance_test: another order of the additions rounds differently.
float Value(int rank, int64_t i) {
  const auto mixed = (static_cast<uint64_t>(rank) * 1000003 + static_cast<uint64_t>(i)) *
                     0x9e3779b97f4a7c15;
  const auto mantissa =
      static_cast<float>(static_cast<int64_t>(mixed >> 11) - (int64_t{1} << 52));
  return std::ldexp(mantissa, static_cast<int>(mixed % 24) - 60);
}

std::vector<float> Values(int rank, int64_t count) {
  std::vector<float> values(static_cast<size_t>(count));
  for (int64_t i = 0; i < count; ++i) {
    values[static_cast<size_t>(i)] = Value(rank, i);
  }
  return values;
}

// A rank of a case: its group, and an array of floats on its device.
struct Rank {
  Communicator* comm = nullptr;
  kernels::KernelBackend* backend = nullptr;
  std::unique_ptr<kernels::Stream> stream;
  std::unique_ptr<StreamWait> wait;

  int rank() const { return comm->rank(); }
  DeviceCommunicator& on_stream() const { return *comm->on_stream(); }
  StreamCommunicator::Place place() const { return {backend, stream.get()}; }
  kernels::cuda::GpuStream& gpu() const { return kernels::cuda::GpuStreamOf(*stream); }

  kernels::DeviceBuffer Allocate(int64_t count) const {
    auto memory = backend->Allocate(static_cast<size_t>(count) * sizeof(float));
    EXPECT_THAT(memory.status(), IsOk());
    return *std::move(memory);
  }
  static TensorView View(const kernels::DeviceBuffer& memory, int64_t begin,
                         int64_t count) {
    return {static_cast<float*>(memory.data()) + begin, DType::kF32, {count}};
  }
  void Upload(std::span<const float> values, TensorView to) const {
    backend->Upload(*stream, values.data(), to);
  }
  // What is there once the stream is done.
  std::vector<float> Read(TensorView from) const {
    EXPECT_THAT(wait->Synchronize(*stream), IsOk());
    std::vector<float> values(static_cast<size_t>(from.num_elements()));
    backend->Download(*stream, from, values.data());
    EXPECT_THAT(stream->Synchronize(), IsOk());
    return values;
  }
};

bool SameBits(const std::vector<float>& a, const std::vector<float>& b) {
  return a.size() == b.size() &&
         (a.empty() || std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0);
}

// Ranks on threads of their own, then no finding.
class StreamRanks : public ::testing::Test {
 protected:
  void Run(int size, const std::function<void(Rank&)>& body,
           const CommOptions& options = kGenerous) {
    const auto machine = std::make_shared<SimMachine>(
        kernels::cuda_sim::SimOptions{.seed = ++seed_, .num_devices = size});
    {
      const auto devices = kernels::CreateSimulatedDevices(machine);
      std::vector<int> members(static_cast<size_t>(size));
      std::iota(members.begin(), members.end(), 0);
      auto group = ConnectLocalRanks("test", *devices, members, options, Clock::Real());
      ASSERT_THAT(group.status(), IsOk());
      std::vector<std::unique_ptr<kernels::KernelBackend>> backends;
      for (const int member : members) {
        backends.push_back(*devices->CreateBackend(member));
      }
      RunRankThreads<Rank>(*group, backends, body);
    }
    EXPECT_THAT(machine->status(), IsOk()) << "seed " << seed_;
  }

  static uint64_t seed_;
};

uint64_t StreamRanks::seed_ = 0;

class StreamCommunicatorTest : public StreamRanks,
                               public ::testing::WithParamInterface<int> {};

void ExpectTheHostsSum(Rank& rank, int64_t count) {
  std::vector<float> expected = Values(rank.rank(), count);
  ASSERT_THAT(rank.comm->AllReduceSum({expected.data(), DType::kF32, {count}}), IsOk());
  // Off the alignment of the memory.
  const auto memory = rank.Allocate(count + 1);
  const TensorView x = Rank::View(memory, 1, count);
  rank.Upload(Values(rank.rank(), count), x);
  ASSERT_THAT(rank.on_stream().AllReduceSum(rank.place(), x), IsOk());
  // Behind it in the stream, and before the host has waited.
  rank.backend->Scale(*rank.stream, x.Reshape({1, count}), 2);
  for (float& value : expected) {
    value *= 2;
  }
  EXPECT_TRUE(SameBits(rank.Read(x), expected)) << count << " values";
}

TEST_P(StreamCommunicatorTest, AllReduceHasTheBitsOfTheHosts) {
  Run(GetParam(), [](Rank& rank) {
    for (const int64_t count : {1, 2, 17, 513, 1000}) {
      ExpectTheHostsSum(rank, count);
    }
  });
}

TEST_F(StreamRanks, AllReduceGoesAPieceAtATime) {
  Run(2, [](Rank& rank) { ExpectTheHostsSum(rank, kPiece + 3); });
}

TEST_P(StreamCommunicatorTest, AllReduceKeepsANanOnEveryRank) {
  Run(GetParam(), [](Rank& rank) {
    constexpr int64_t kCount = 20;
    std::vector<float> values = Values(rank.rank(), kCount);
    std::vector<float> expected = values;
    // One of the first rank, one of the last, one of all.
    const float nan = std::numeric_limits<float>::quiet_NaN();
    const int last = rank.comm->size() - 1;
    values[3] = rank.rank() == 0 ? nan : 1;
    values[4] = rank.rank() == last ? -nan : std::numeric_limits<float>::infinity();
    values[5] = nan;
    ASSERT_THAT(rank.comm->AllReduceSum({expected.data(), DType::kF32, {kCount}}),
                IsOk());
    const auto memory = rank.Allocate(kCount);
    const TensorView x = Rank::View(memory, 0, kCount);
    rank.Upload(values, x);
    ASSERT_THAT(rank.on_stream().AllReduceSum(rank.place(), x), IsOk());
    std::vector<float> sums = rank.Read(x);
    for (const size_t i : {3U, 4U, 5U}) {
      EXPECT_TRUE(std::isnan(sums[i])) << i;
      sums[i] = expected[i];
    }
    EXPECT_TRUE(SameBits(sums, expected));
  });
}

// Parts of `counts` values, from the rank's place in what is gathered or from elsewhere.
void ExpectTheHostsGather(Rank& rank, const std::vector<int64_t>& counts, bool in_place) {
  std::vector<int64_t> bytes;
  int64_t total = 0;
  int64_t begin = 0;
  for (size_t i = 0; i < counts.size(); ++i) {
    begin = static_cast<int>(i) == rank.rank() ? total : begin;
    total += counts[i];
    bytes.push_back(counts[i] * static_cast<int64_t>(sizeof(float)));
  }
  const int64_t own = counts[static_cast<size_t>(rank.rank())];
  const std::vector<float> values = Values(rank.rank(), own);
  std::vector<float> expected(static_cast<size_t>(total));
  ASSERT_THAT(rank.comm->AllGather(std::as_bytes(std::span(values)), bytes,
                                   std::as_writable_bytes(std::span(expected))),
              IsOk());
  const auto memory = rank.Allocate(2 * total + 1);
  const TensorView part = Rank::View(memory, in_place ? begin : total, own);
  rank.Upload(values, part);
  ASSERT_THAT(
      rank.on_stream().AllGather(
          rank.place(), {static_cast<const std::byte*>(part.data), values.size() * 4},
          bytes, {static_cast<std::byte*>(memory.data()), expected.size() * 4}),
      IsOk());
  EXPECT_TRUE(SameBits(rank.Read(Rank::View(memory, 0, total)), expected));
}

TEST_P(StreamCommunicatorTest, AllGatherHasTheBytesOfTheHosts) {
  Run(GetParam(), [](Rank& rank) {
    const auto size = static_cast<size_t>(rank.comm->size());
    std::vector<int64_t> rising(size);
    std::iota(rising.begin(), rising.end(), 0);  // the first part is empty
    for (const std::vector<int64_t>& counts :
         {std::vector<int64_t>(size, 1), std::vector<int64_t>(size, 37), rising,
          std::vector<int64_t>(size, 0)}) {
      ExpectTheHostsGather(rank, counts, true);
      ExpectTheHostsGather(rank, counts, false);
    }
  });
}

TEST_P(StreamCommunicatorTest, AGraphRepeatsASumAndAGather) {
  Run(GetParam(), [](Rank& rank) {
    constexpr int64_t kCount = 33;
    const int64_t size = rank.comm->size();
    const auto memory = rank.Allocate(size * kCount);
    const TensorView x = Rank::View(memory, rank.rank() * kCount, kCount);
    const std::vector<int64_t> counts(static_cast<size_t>(size), kCount * 4);
    ASSERT_TRUE(rank.gpu().BeginCapture().ok());
    EXPECT_THAT(rank.on_stream().AllReduceSum(rank.place(), x), IsOk());
    rank.backend->Scale(*rank.stream, x.Reshape({1, kCount}), rank.rank() + 1);
    EXPECT_THAT(
        rank.on_stream().AllGather(
            rank.place(), {static_cast<const std::byte*>(x.data), kCount * 4}, counts,
            {static_cast<std::byte*>(memory.data()),
             static_cast<size_t>(size) * kCount * 4}),
        IsOk());
    auto graph = rank.gpu().EndCapture();
    ASSERT_THAT(graph.status(), IsOk());
    for (int replay = 0; replay < 3; ++replay) {
      std::vector<float> sum = Values(rank.rank() + replay, kCount);
      rank.Upload(sum, x);
      ASSERT_THAT(rank.comm->AllReduceSum({sum.data(), DType::kF32, {kCount}}), IsOk());
      ASSERT_TRUE(rank.gpu().Launch(*graph).ok());
      const std::vector<float> gathered = rank.Read(Rank::View(memory, 0, size * kCount));
      for (int64_t i = 0; i < size * kCount; ++i) {
        ASSERT_EQ(
            gathered[static_cast<size_t>(i)],
            sum[static_cast<size_t>(i % kCount)] * static_cast<float>(i / kCount + 1))
            << "replay " << replay << " value " << i;
      }
    }
  });
}

INSTANTIATE_TEST_SUITE_P(Sizes, StreamCommunicatorTest, ::testing::Values(1, 2, 4, 8));

TEST_F(StreamRanks, ExchangeMovesWhatEachRankNames) {
  Run(3, [](Rank& rank) {
    // A row for each peer, and a row from each.
    constexpr int64_t kCount = 5;
    const int64_t size = rank.comm->size();
    const auto memory = rank.Allocate(2 * size * kCount);
    std::vector<kernels::DeviceTransfer> transfers;
    for (int peer = 0; peer < size; ++peer) {
      if (peer == rank.rank()) {
        continue;
      }
      rank.Upload(Values(10 * rank.rank() + peer, kCount),
                  Rank::View(memory, peer * kCount, kCount));
      transfers.push_back(
          {true, Rank::View(memory, peer * kCount, kCount).data, kCount * 4, peer});
      transfers.push_back({false, Rank::View(memory, (size + peer) * kCount, kCount).data,
                           kCount * 4, peer});
    }
    ASSERT_THAT(rank.on_stream().Exchange(*rank.stream, transfers), IsOk());
    EXPECT_THAT(rank.on_stream().Exchange(*rank.stream, {}), IsOk());
    for (int peer = 0; peer < size; ++peer) {
      if (peer != rank.rank()) {
        EXPECT_TRUE(
            SameBits(rank.Read(Rank::View(memory, (size + peer) * kCount, kCount)),
                     Values(10 * peer + rank.rank(), kCount)));
      }
    }
  });
}

TEST_F(StreamRanks, WhatCannotBeSummedKillsTheGroup) {
  const auto expect_refused = [this](int size, TensorView x) {
    Run(size, [x](Rank& rank) {
      const absl::Status status = rank.on_stream().AllReduceSum(rank.place(), x);
      // On a group that another rank may already have ended, both are right.
      EXPECT_TRUE(status.code() == absl::StatusCode::kInvalidArgument ||
                  status.code() == absl::StatusCode::kAborted)
          << status;
      EXPECT_THAT(rank.on_stream().Exchange(*rank.stream, {}),
                  StatusIs(absl::StatusCode::kAborted));
      EXPECT_THAT(rank.comm->Barrier(), StatusIs(absl::StatusCode::kAborted));
    });
  };
  std::vector<double> values(4);
  expect_refused(2, {values.data(), DType::kF64, {4}});
  expect_refused(3, {values.data(), DType::kF32, {4}});
  expect_refused(2, TensorView(values.data(), DType::kF32, {2, 4}).Slice(1, 0, 2));
}

// One sum of all ranks but those of `missing`; what StreamWait says.
absl::Status SumAndWait(Rank& rank) {
  const auto memory = rank.Allocate(8);
  const TensorView x = Rank::View(memory, 0, 8);
  rank.Upload(Values(rank.rank(), 8), x);
  const absl::Status enqueued = rank.on_stream().AllReduceSum(rank.place(), x);
  const absl::Status waited = rank.wait->Synchronize(*rank.stream);
  // Nothing is left that could wait.
  EXPECT_THAT(rank.stream->Synchronize(), IsOk());
  return enqueued.ok() ? waited : enqueued;
}

TEST_F(StreamRanks, AMissingRankIsMissedByTheDeadline) {
  Run(
      4,
      [](Rank& rank) {
        if (rank.rank() == 2) {
          Clock::Real()->Sleep(3 * kShort.timeout);
          EXPECT_THAT(SumAndWait(rank), StatusIs(absl::StatusCode::kAborted));
          return;
        }
        const absl::Time begin = absl::Now();
        const absl::Status status = SumAndWait(rank);
        EXPECT_TRUE(status.code() == absl::StatusCode::kDeadlineExceeded ||
                    status.code() == absl::StatusCode::kAborted)
            << status;
        EXPECT_TRUE(absl::StrContains(status.message(), "test")) << status;
        if (status.code() == absl::StatusCode::kDeadlineExceeded) {
          EXPECT_GE(absl::Now() - begin, kShort.timeout);
        }
      },
      kShort);
}

TEST_F(StreamRanks, ALateRankIsWaitedFor) {
  Run(2, [](Rank& rank) {
    if (rank.rank() == 1) {
      Clock::Real()->Sleep(absl::Milliseconds(200));
    }
    EXPECT_THAT(SumAndWait(rank), IsOk());
    EXPECT_THAT(rank.comm->Barrier(), IsOk());
  });
}

TEST_F(StreamRanks, ARankThatEndsEndsTheWaitOfTheOthers) {
  Run(4, [](Rank& rank) {
    const absl::Time begin = absl::Now();
    if (rank.rank() == 3) {
      Clock::Real()->Sleep(absl::Milliseconds(50));
      rank.comm->Abort("it was told to");
      return;
    }
    EXPECT_THAT(SumAndWait(rank), StatusIs(absl::StatusCode::kAborted));
    EXPECT_LT(absl::Now() - begin, kGenerous.timeout / 2);
  });
}

TEST_F(StreamRanks, ARankThatIsMissingInAGraphIsMissedByTheDeadline) {
  Run(2,
      [](Rank& rank) {
        const auto memory = rank.Allocate(8);
        const TensorView x = Rank::View(memory, 0, 8);
        ASSERT_TRUE(rank.gpu().BeginCapture().ok());
        EXPECT_THAT(rank.on_stream().AllReduceSum(rank.place(), x), IsOk());
        auto graph = rank.gpu().EndCapture();
        ASSERT_THAT(graph.status(), IsOk());
        ASSERT_TRUE(rank.gpu().Launch(*graph).ok());
        EXPECT_THAT(rank.wait->Synchronize(*rank.stream), IsOk());
        if (rank.rank() == 1) {
          return;  // and launches it never again
        }
        ASSERT_TRUE(rank.gpu().Launch(*graph).ok());
        EXPECT_THAT(rank.wait->Synchronize(*rank.stream),
                    StatusIs(absl::StatusCode::kDeadlineExceeded));
        EXPECT_THAT(rank.stream->Synchronize(), IsOk());
      },
      {.timeout = absl::Seconds(2)});
}

TEST_F(StreamRanks, AStepThatFailsBetweenItsCollectivesEndsTheGroup) {
  Run(2, [](Rank& rank) {
    EXPECT_THAT(SumAndWait(rank), IsOk());
    if (rank.rank() == 0) {
      rank.wait->EndGroups("no rows");
      EXPECT_THAT(rank.comm->Barrier(), StatusIs(absl::StatusCode::kAborted));
      return;
    }
    EXPECT_THAT(SumAndWait(rank), StatusIs(absl::StatusCode::kAborted));
  });
}

TEST_F(StreamRanks, AStreamThatWaitsForARankIsGivenUpBeforeItGoes) {
  Run(2, [](Rank& rank) {
    EXPECT_THAT(SumAndWait(rank), IsOk());
    rank.wait->GiveUp(*rank.stream, "it is done");
    EXPECT_THAT(rank.comm->Barrier(), IsOk());
    if (rank.rank() == 0) {
      const auto memory = rank.Allocate(8);
      ASSERT_THAT(rank.on_stream().AllReduceSum(rank.place(), Rank::View(memory, 0, 8)),
                  IsOk());
      rank.wait->GiveUp(*rank.stream, "no rows");
      EXPECT_THAT(rank.stream->Synchronize(), IsOk());
      EXPECT_THAT(rank.comm->Barrier(), StatusIs(absl::StatusCode::kAborted));
      return;
    }
    while (rank.on_stream().Check().ok()) {
      Clock::Real()->Sleep(absl::Milliseconds(1));
    }
    EXPECT_THAT(SumAndWait(rank), StatusIs(absl::StatusCode::kAborted));
  });
}

// Where devices cannot reach each other.
TEST(HostStreamCommunicator, HasTheBitsOfTheCommunicator) {
  auto group = CreateInProcessGroup("test", 2, kGenerous, Clock::Real());
  ASSERT_THAT(group.status(), IsOk());
  std::vector<std::thread> threads;
  for (const auto& comm : *group) {
    threads.emplace_back([&comm] {
      HostStreamCommunicator tp(comm.get());
      StreamWait wait({comm.get()}, Clock::Real());
      const auto backend = kernels::CreateBackend({.name = "reference"});
      ASSERT_THAT(backend.status(), IsOk());
      const auto stream = (*backend)->CreateStream();
      ASSERT_THAT(stream.status(), IsOk());
      const StreamCommunicator::Place place = {backend->get(), stream->get()};
      EXPECT_EQ(tp.rank(), comm->rank());
      EXPECT_EQ(tp.size(), 2);
      std::vector<float> x = Values(comm->rank(), 9);
      ASSERT_THAT(tp.AllReduceSum(place, {x.data(), DType::kF32, {9}}), IsOk());
      EXPECT_EQ(x[7], Value(0, 7) + Value(1, 7));
      std::vector<float> gathered = {0, 0, 0};
      const float own[] = {1, 2};
      const std::vector<int64_t> counts = {4, 8};
      ASSERT_THAT(
          tp.AllGather(place,
                       std::as_bytes(std::span(own).first(comm->rank() == 0 ? 1 : 2)),
                       counts, std::as_writable_bytes(std::span(gathered))),
          IsOk());
      EXPECT_EQ(gathered, (std::vector<float>{1, 1, 2}));
      EXPECT_GT(tp.host_time(), absl::ZeroDuration());
      EXPECT_THAT(wait.Synchronize(**stream), IsOk());
      wait.GiveUp(**stream, "a failed step");
      wait.EndGroups("a failed step");
      EXPECT_THAT(comm->Barrier(), IsOk());
    });
  }
  for (std::thread& thread : threads) {
    thread.join();
  }
}

}  // namespace
}  // namespace tessera::worker
