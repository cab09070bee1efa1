// What DeviceCollectives promises of a group whose ranks one thread polls in turn: over
// the twins (sim_collectives_test) and over NCCL (gpu_collectives_test, where there are
// GPUs: two of them, or one, which then is a group of its own).
#include "kernels/cuda/devices/nccl_collectives.h"

#include <algorithm>
#include <cstddef>
#include <memory>
#include <numeric>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "gtest/gtest.h"

#include "kernels/cuda/backend_stream.h"

namespace tessera::kernels::cuda {
namespace {

constexpr size_t kBytes = 1000;

absl::StatusOr<std::shared_ptr<GpuMachine>> MakeMachine() {
#ifdef __CUDACC__
  return GpuMachine::Create();
#else
  return GpuMachine::Create({.num_devices = 2});
#endif
}

// Bytes that say whose they are.
std::vector<std::byte> BytesOf(int rank) {
  std::vector<std::byte> bytes(kBytes);
  for (size_t i = 0; i < kBytes; ++i) {
    bytes[i] = static_cast<std::byte>(i + 100 * static_cast<size_t>(rank));
  }
  return bytes;
}

class NcclCollectivesTest : public testing::Test {
 protected:
  void SetUp() override {
    auto machine = MakeMachine();
    if (machine.status().code() == absl::StatusCode::kNotFound) {
      GTEST_SKIP() << "skipped: " << machine.status().message();
    }
    ASSERT_TRUE(machine.ok()) << machine.status();
    machine_ = std::move(*machine);
    size_ = std::min(2, machine_->num_devices());
    const GpuNcclId id = GpuNcclComm::GetUniqueId(machine_);
    for (int rank = 0; rank < size_; ++rank) {
      auto made = CreateNcclCollectives(machine_, id, size_, rank, rank);
      ASSERT_TRUE(made.ok()) << made.status();
      ranks_.push_back(std::move(*made));
      auto memory = ranks_.back()->Allocate(kBytes * static_cast<size_t>(size_));
      ASSERT_TRUE(memory.ok()) << memory.status();
      memory_.push_back(std::move(*memory));
    }
    Finish();
  }
  // Until all ranks have nothing under way. Ends as soon as one of them fails.
  void Finish() {
    for (const auto& rank : ranks_) {
      while (true) {
        const absl::StatusOr<bool> done = rank->Poll();
        ASSERT_TRUE(done.ok()) << done.status();
        if (*done) {
          break;
        }
        for (const auto& other : ranks_) {
          if (other != rank) {
            ASSERT_TRUE(other->Poll().ok());
          }
        }
      }
    }
  }
  std::byte* Memory(int rank) {
    return static_cast<std::byte*>(memory_[static_cast<size_t>(rank)].data());
  }
  void Fill(int rank, size_t at) {
    EXPECT_TRUE(Rank(rank).CopyIn(BytesOf(rank), Memory(rank) + at).ok());
  }
  std::vector<std::byte> Read(int rank, size_t at) {
    std::vector<std::byte> bytes(kBytes);
    EXPECT_TRUE(Rank(rank).CopyOut(Memory(rank) + at, bytes).ok());
    return bytes;
  }
  DeviceCollectives& Rank(int rank) { return *ranks_[static_cast<size_t>(rank)]; }

  // A stream of each rank's device, as its backend has.
  void MakeStreams() {
    for (int rank = 0; rank < size_; ++rank) {
      auto stream = GpuStream::Create(machine_, rank);
      ASSERT_TRUE(stream.ok()) << stream.status();
      streams_.push_back(std::make_unique<BackendStream>(*std::move(stream)));
    }
  }
  BackendStream& StreamOf(int rank) { return *streams_[static_cast<size_t>(rank)]; }
  // Until all ranks' operations are in their streams: the first ones may need each other.
  void AwaitEnqueued() {
    for (int left = size_; left > 0;) {
      left = size_;
      for (const auto& rank : ranks_) {
        const absl::StatusOr<bool> enqueued = rank->PollEnqueued();
        ASSERT_TRUE(enqueued.ok()) << enqueued.status();
        left -= *enqueued ? 1 : 0;
      }
    }
  }
  void FinishStreams() {
    for (int rank = 0; rank < size_; ++rank) {
      absl::StatusOr<bool> done = StreamOf(rank).Poll();
      while (done.ok() && !*done) {
        done = StreamOf(rank).Poll();
      }
      ASSERT_TRUE(done.ok()) << done.status();
    }
  }
  // What the rank has at place 0 goes to place 1 of the peer.
  std::vector<DeviceTransfer> ToThePeer(int rank) {
    return {{.is_send = true, .data = Memory(rank), .bytes = kBytes, .peer = 1 - rank},
            {.data = Memory(rank) + kBytes, .bytes = kBytes, .peer = 1 - rank}};
  }

  std::shared_ptr<GpuMachine> machine_;
  int size_ = 0;
  std::vector<std::unique_ptr<DeviceCollectives>> ranks_;
  std::vector<DeviceBuffer> memory_;  // room for kBytes of every rank
  std::vector<std::unique_ptr<BackendStream>> streams_;
};

TEST_F(NcclCollectivesTest, AllGatherPutsEachRanksBytesInItsPlace) {
  for (int rank = 0; rank < size_; ++rank) {
    EXPECT_EQ(Rank(rank).rank(), rank);
    EXPECT_EQ(Rank(rank).size(), size_);
    const size_t own = kBytes * static_cast<size_t>(rank);
    Fill(rank, own);
    ASSERT_TRUE(Rank(rank).AllGather(Memory(rank) + own, Memory(rank), kBytes).ok());
  }
  Finish();
  for (int rank = 0; rank < size_; ++rank) {
    for (int from = 0; from < size_; ++from) {
      EXPECT_EQ(Read(rank, kBytes * static_cast<size_t>(from)), BytesOf(from));
    }
  }
}

TEST_F(NcclCollectivesTest, BroadcastGivesEveryRankTheRootsBytes) {
  const int root = size_ - 1;
  for (int rank = 0; rank < size_; ++rank) {
    Fill(rank, 0);
    ASSERT_TRUE(Rank(rank).Broadcast(Memory(rank), kBytes, root).ok());
  }
  Finish();
  for (int rank = 0; rank < size_; ++rank) {
    EXPECT_EQ(Read(rank, 0), BytesOf(root));
  }
}

TEST_F(NcclCollectivesTest, AnExchangeMeetsItsPeersPairByPair) {
  if (size_ < 2) {
    GTEST_SKIP() << "one device, expected two";
  }
  for (int rank = 0; rank < 2; ++rank) {
    Fill(rank, 0);
    const std::vector<DeviceTransfer> transfers = {
        {.is_send = true, .data = Memory(rank), .bytes = kBytes, .peer = 1 - rank},
        {.data = Memory(rank) + kBytes, .bytes = kBytes, .peer = 1 - rank}};
    ASSERT_TRUE(Rank(rank).Exchange(transfers).ok());
  }
  Finish();
  for (int rank = 0; rank < 2; ++rank) {
    EXPECT_EQ(Read(rank, kBytes), BytesOf(1 - rank));
  }
}

TEST_F(NcclCollectivesTest, OperationsOnABackendsStreamRunBetweenItsOwn) {
  MakeStreams();
  const auto own = [this](int rank) {
    return Memory(rank) + kBytes * static_cast<size_t>(rank);
  };
  for (int rank = 0; rank < size_; ++rank) {
    const std::vector<std::byte> bytes = BytesOf(rank);
    ASSERT_TRUE(StreamOf(rank).gpu().MemcpyAsync(own(rank), bytes.data(), kBytes).ok());
    ASSERT_TRUE(
        Rank(rank).AllGatherOn(StreamOf(rank), own(rank), Memory(rank), kBytes).ok());
  }
  ASSERT_NO_FATAL_FAILURE(AwaitEnqueued());
  for (int rank = 0; rank < size_; ++rank) {  // behind it
    ASSERT_TRUE(StreamOf(rank).gpu().MemsetAsync(own(rank), 0, kBytes).ok());
  }
  ASSERT_NO_FATAL_FAILURE(FinishStreams());
  for (int rank = 0; rank < size_; ++rank) {
    for (int from = 0; from < size_; ++from) {
      EXPECT_EQ(Read(rank, kBytes * static_cast<size_t>(from)),
                from == rank ? std::vector<std::byte>(kBytes) : BytesOf(from));
    }
  }
}

TEST_F(NcclCollectivesTest, AGraphRepeatsAnExchange) {
  if (size_ < 2) {
    GTEST_SKIP() << "one device, expected two";
  }
  MakeStreams();
  for (int rank = 0; rank < 2; ++rank) {
    ASSERT_TRUE(StreamOf(rank).gpu().BeginCapture().ok());
    ASSERT_TRUE(Rank(rank).ExchangeOn(StreamOf(rank), ToThePeer(rank)).ok());
  }
  ASSERT_NO_FATAL_FAILURE(AwaitEnqueued());
  std::vector<GpuGraph> graphs;
  for (int rank = 0; rank < 2; ++rank) {
    auto graph = StreamOf(rank).gpu().EndCapture();
    ASSERT_TRUE(graph.ok()) << graph.status();
    graphs.push_back(*std::move(graph));
  }
  for (const int shift : {0, 2, 5}) {
    for (int rank = 0; rank < 2; ++rank) {
      GpuStream& stream = StreamOf(rank).gpu();
      const std::vector<std::byte> bytes = BytesOf(rank + shift);
      ASSERT_TRUE(stream.MemcpyAsync(Memory(rank), bytes.data(), kBytes).ok());
      ASSERT_TRUE(stream.Launch(graphs[static_cast<size_t>(rank)]).ok());
    }
    ASSERT_NO_FATAL_FAILURE(FinishStreams());
    for (int rank = 0; rank < 2; ++rank) {
      EXPECT_EQ(Read(rank, kBytes), BytesOf(1 - rank + shift)) << "shift " << shift;
    }
  }
}

TEST_F(NcclCollectivesTest, AnOperationOnABackendsStreamEndsWithAnAbort) {
  if (size_ < 2) {
    GTEST_SKIP() << "one device, expected two";
  }
  MakeStreams();
  ASSERT_TRUE(Rank(0).ExchangeOn(StreamOf(0), ToThePeer(0)).ok());
  EXPECT_TRUE(Rank(0).PollEnqueued().ok());
  EXPECT_TRUE(StreamOf(0).Poll().ok());
  Rank(0).Abort();
  EXPECT_TRUE(StreamOf(0).Synchronize().ok()) << "nothing waits for a peer any more";
}

TEST_F(NcclCollectivesTest, NothingFollowsAnAbort) {
  Rank(0).Abort();
  Rank(0).Abort();
  EXPECT_EQ(Rank(0).Poll().status().code(), absl::StatusCode::kFailedPrecondition);
}

}  // namespace
}  // namespace tessera::kernels::cuda
