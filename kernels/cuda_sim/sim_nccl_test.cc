// The NCCL twin: operations of the ranks meet under every seed, and what would hang or
// corrupt a machine of GPUs is found and named.
#include "kernels/cuda_sim/sim_nccl.h"

#include <algorithm>
#include <cstdint>
#include <memory>
#include <set>
#include <string>
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
using model::DType;
using testing::HasSubstr;

constexpr uint64_t kSeeds = 20;

// A machine of one device a rank, and a communicator of all of them.
class Ranks {
 public:
  explicit Ranks(uint64_t seed, int size = 4)
      : machine_(
            std::make_shared<SimMachine>(SimOptions{.seed = seed, .num_devices = size})),
        id_(SimNcclComm::GetUniqueId(machine_)) {
    for (int rank = 0; rank < size; ++rank) {
      auto stream = SimStream::Create(machine_, rank);
      auto comm = SimNcclComm::InitRank(id_, size, rank, rank);
      TESSERA_CHECK(stream.ok() && comm.ok());
      streams_.push_back(*std::move(stream));
      comms_.push_back(*std::move(comm));
    }
    for (int rank = 0; rank < size; ++rank) {
      EXPECT_TRUE(Settle(rank));
    }
  }

  SimMachine& machine() { return *machine_; }
  const SimNcclId& id() const { return id_; }
  SimStream& stream(int rank) { return *streams_[static_cast<size_t>(rank)]; }
  SimNcclComm& comm(int rank) { return *comms_[static_cast<size_t>(rank)]; }
  SimEvent Event() { return SimEvent(machine_); }
  std::unique_ptr<SimStream> Side(int rank) {
    auto stream = SimStream::Create(machine_, rank);
    TESSERA_CHECK(stream.ok());
    return *std::move(stream);
  }
  void Destroy(int rank) { comms_[static_cast<size_t>(rank)] = nullptr; }
  // The rank's call has been issued.
  bool Settle(int rank) {
    for (int polls = 0; polls < 10; ++polls) {
      auto state = comm(rank).GetAsyncError();
      if (!state.ok() || *state != NcclState::kInProgress) {
        return state.ok() && *state == NcclState::kSuccess;
      }
    }
    return false;
  }
  // Memory of the rank's device with these values.
  GlobalSpan<int32_t> Ints(int rank, const std::vector<int32_t>& values) {
    const size_t bytes = values.size() * sizeof(int32_t);
    auto memory = machine_->Malloc(rank, bytes);
    TESSERA_CHECK(memory.ok());
    TESSERA_CHECK(stream(rank).MemcpyAsync(*memory, values.data(), bytes).ok());
    return {static_cast<int32_t*>(*memory), std::ssize(values)};
  }
  std::vector<int32_t> Get(int rank, GlobalSpan<int32_t> x) {
    std::vector<int32_t> values(static_cast<size_t>(x.size), -1);
    EXPECT_TRUE(stream(rank).MemcpyAsync(values.data(), x.data, values.size() * 4).ok());
    return values;
  }
  void Gather(int rank, GlobalSpan<int32_t> send, GlobalSpan<int32_t> recv) {
    EXPECT_TRUE(comm(rank)
                    .AllGather(send.data, recv.data, static_cast<size_t>(send.size),
                               DType::kI32, stream(rank))
                    .ok());
    EXPECT_TRUE(Settle(rank));
  }
  void Send(int rank, GlobalSpan<int32_t> x, int peer) {
    EXPECT_TRUE(
        comm(rank)
            .Send(x.data, static_cast<size_t>(x.size), DType::kI32, peer, stream(rank))
            .ok());
  }
  void Recv(int rank, GlobalSpan<int32_t> x, int peer) {
    EXPECT_TRUE(
        comm(rank)
            .Recv(x.data, static_cast<size_t>(x.size), DType::kI32, peer, stream(rank))
            .ok());
  }
  std::vector<Finding> Found(FindingKind kind) const {
    std::vector<Finding> findings = machine_->findings();
    std::erase_if(findings, [&](const Finding& f) { return f.kind != kind; });
    return findings;
  }

 private:
  const std::shared_ptr<SimMachine> machine_;
  SimNcclId id_;
  std::vector<std::unique_ptr<SimStream>> streams_;
  std::vector<std::unique_ptr<SimNcclComm>> comms_;
};

TEST(SimNccl, CollectivesGiveEveryRankTheBytesUnderEverySeed) {
  for (uint64_t seed = 1; seed <= kSeeds; ++seed) {
    Ranks ranks(seed);
    std::vector<GlobalSpan<int32_t>> gathered;
    std::vector<GlobalSpan<int32_t>> told;
    for (int rank = 0; rank < 4; ++rank) {
      gathered.push_back(ranks.Ints(rank, std::vector<int32_t>(8)));
      told.push_back(ranks.Ints(rank, {rank, rank + 1}));
      ranks.Gather(rank, ranks.Ints(rank, {rank * 2, rank * 2 + 1}), gathered.back());
      EXPECT_TRUE(ranks.comm(rank)
                      .Broadcast(told.back().data, told.back().data, 2, DType::kI32, 2,
                                 ranks.stream(rank))
                      .ok());
      EXPECT_TRUE(ranks.Settle(rank));
    }
    for (int rank = 0; rank < 4; ++rank) {
      EXPECT_THAT(ranks.Get(rank, gathered[static_cast<size_t>(rank)]),
                  testing::ElementsAre(0, 1, 2, 3, 4, 5, 6, 7));
      EXPECT_THAT(ranks.Get(rank, told[static_cast<size_t>(rank)]),
                  testing::ElementsAre(2, 3));
    }
    EXPECT_TRUE(ranks.machine().status().ok()) << ranks.machine().status();
    EXPECT_EQ(ranks.id().Traffic(0, 3), (NcclTraffic{1, 8}));
    EXPECT_EQ(ranks.id().Traffic(2, 3), (NcclTraffic{2, 16}));
    EXPECT_EQ(ranks.id().Traffic(3, 3), NcclTraffic());
  }
}

// Every rank to every rank, itself included, in one group; then once more by a graph.
TEST(SimNccl, GroupsOfSendsAndReceivesAreCapturedAndReplayed) {
  for (uint64_t seed = 1; seed <= kSeeds; ++seed) {
    Ranks ranks(seed, 3);
    std::vector<GlobalSpan<int32_t>> out;
    std::vector<GlobalSpan<int32_t>> in;
    std::vector<SimGraph> graphs;
    for (int rank = 0; rank < 3; ++rank) {
      out.push_back(ranks.Ints(rank, {rank * 10, rank * 10 + 1, rank * 10 + 2}));
      in.push_back(ranks.Ints(rank, {0, 0, 0}));
      ASSERT_TRUE(ranks.stream(rank).BeginCapture().ok());
      ASSERT_TRUE(ranks.comm(rank).GroupStart().ok());
      for (int peer = 0; peer < 3; ++peer) {
        ranks.Send(rank, out.back().Slice(peer, 1), peer);
        ranks.Recv(rank, in.back().Slice(peer, 1), peer);
      }
      ASSERT_TRUE(ranks.comm(rank).GroupEnd().ok());
      ASSERT_TRUE(ranks.Settle(rank));
      auto graph = ranks.stream(rank).EndCapture();
      ASSERT_TRUE(graph.ok()) << graph.status();
      graphs.push_back(*graph);
    }
    EXPECT_EQ(ranks.id().Traffic(0, 1), NcclTraffic());
    for (int launch = 0; launch < 2; ++launch) {
      for (int rank = 0; rank < 3; ++rank) {
        ASSERT_TRUE(ranks.stream(rank).Launch(graphs[static_cast<size_t>(rank)]).ok());
      }
    }
    for (int rank = 0; rank < 3; ++rank) {
      EXPECT_THAT(ranks.Get(rank, in[static_cast<size_t>(rank)]),
                  testing::ElementsAre(rank, 10 + rank, 20 + rank));
    }
    EXPECT_TRUE(ranks.machine().status().ok()) << ranks.machine().status();
    EXPECT_EQ(ranks.id().Traffic(0, 1), (NcclTraffic{2, 8}));
  }
}

TEST(SimNccl, AReceiverIsOrderedAfterWhatTheSenderDidBefore) {
  for (uint64_t seed = 1; seed <= kSeeds; ++seed) {
    Ranks ranks(seed, 2);
    auto pinned = ranks.machine().MallocHost(4);
    ASSERT_TRUE(pinned.ok());
    const auto x = ranks.Ints(0, {7});
    const auto y = ranks.Ints(1, {0});
    ASSERT_TRUE(ranks.stream(0).MemcpyAsync(*pinned, x.data, 4).ok());
    ranks.Send(0, x, 1);
    ranks.Recv(1, y, 0);
    ASSERT_TRUE(ranks.Settle(0) && ranks.Settle(1));
    ASSERT_TRUE(ranks.stream(1).MemcpyAsync(y.data, *pinned, 4).ok());
    EXPECT_THAT(ranks.Get(1, y), testing::ElementsAre(7));
    EXPECT_TRUE(ranks.machine().status().ok()) << ranks.machine().status();
  }
}

TEST(PlantedBug, ASenderIsNotOrderedAfterWhatTheReceiverDidBefore) {
  for (uint64_t seed = 1; seed <= kSeeds; ++seed) {
    Ranks ranks(seed, 2);
    auto pinned = ranks.machine().MallocHost(4);
    ASSERT_TRUE(pinned.ok());
    const auto x = ranks.Ints(0, {7});
    const auto y = ranks.Ints(1, {0});
    ASSERT_TRUE(ranks.stream(1).MemcpyAsync(y.data, *pinned, 4).ok());
    ranks.Recv(1, y, 0);
    ranks.Send(0, x, 1);
    ASSERT_TRUE(ranks.Settle(0) && ranks.Settle(1));
    ASSERT_TRUE(ranks.stream(0).MemcpyAsync(*pinned, x.data, 4).ok());
    EXPECT_FALSE(ranks.stream(0).Synchronize().ok());
    EXPECT_FALSE(ranks.Found(FindingKind::kStreamDependency).empty()) << "seed " << seed;
  }
}

// An event that is recorded while the operation is in progress stands before it.
TEST(SimNccl, AnEventBeforeTheOperationWasIssuedDoesNotWaitForIt) {
  std::set<bool> seen;
  for (uint64_t seed = 1; seed <= kSeeds; ++seed) {
    Ranks ranks(seed, 2);
    SimEvent event = ranks.Event();
    ranks.Recv(0, ranks.Ints(0, {0}), 1);
    ASSERT_TRUE(ranks.stream(0).Record(event).ok());
    auto done = event.Query();
    ASSERT_TRUE(done.ok()) << done.status();
    seen.insert(*done);
    ranks.Send(1, ranks.Ints(1, {1}), 0);
    ASSERT_TRUE(ranks.Settle(0) && ranks.Settle(1));
    ASSERT_TRUE(ranks.stream(0).Synchronize().ok());
  }
  EXPECT_EQ(seen, (std::set<bool>{false, true}));
}

// A synchronisation would be the finding of PartialCollective.
TEST(SimNccl, AStreamIsAskedWhileAnotherRankMayStillCome) {
  for (uint64_t seed = 1; seed <= kSeeds; ++seed) {
    Ranks ranks(seed, 2);
    const auto x = ranks.Ints(0, {0});
    ranks.Recv(0, x, 1);
    ASSERT_TRUE(ranks.Settle(0));
    const uint64_t waits = ranks.machine().num_host_waits();
    for (int polls = 0; polls < 3; ++polls) {
      EXPECT_FALSE(ranks.stream(0).Query().value_or(true)) << "seed " << seed;
    }
    EXPECT_EQ(ranks.machine().num_host_waits(), waits);
    ranks.Send(1, ranks.Ints(1, {5}), 0);
    ASSERT_TRUE(ranks.Settle(1));
    EXPECT_TRUE(ranks.stream(0).Query().value_or(false)) << "seed " << seed;
    EXPECT_EQ(ranks.machine().num_host_waits(), waits + 1);
    EXPECT_EQ(ranks.Get(0, x), std::vector<int32_t>{5});
    EXPECT_TRUE(ranks.machine().status().ok()) << ranks.machine().status();
  }
}

TEST(SimNccl, ACommunicatorIsInProgressUntilAllRanksHaveCome) {
  auto machine = std::make_shared<SimMachine>(SimOptions{.num_devices = 2});
  const SimNcclId id = SimNcclComm::GetUniqueId(machine);
  auto first = SimNcclComm::InitRank(id, 2, 0, 0);
  ASSERT_TRUE(first.ok());
  for (int polls = 0; polls < 20; ++polls) {
    EXPECT_EQ(*(*first)->GetAsyncError(), NcclState::kInProgress);
  }
  EXPECT_EQ((*first)->GroupStart().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(SimNcclComm::InitRank(id, 2, 0, 1).status().code(),
            absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(SimNcclComm::InitRank(id, 2, 1, 0).status().code(),
            absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(SimNcclComm::InitRank(id, 3, 2, 1).status().code(),
            absl::StatusCode::kInvalidArgument);
  auto second = SimNcclComm::InitRank(id, 2, 1, 1);
  ASSERT_TRUE(second.ok());
  int polls = 0;
  while (*(*first)->GetAsyncError() == NcclState::kInProgress) {
    ASSERT_LT(++polls, 10);
  }
}

TEST(SimNccl, ARankJoinsByTheBytesOfAnIdThatItsMachineMade) {
  auto machine = std::make_shared<SimMachine>(SimOptions{.num_devices = 2});
  const SimNcclId other = SimNcclComm::GetUniqueId(machine);
  const SimNcclId made = SimNcclComm::GetUniqueId(machine);
  EXPECT_NE(other.bytes()->bytes, made.bytes()->bytes);
  EXPECT_EQ(made.bytes()->bytes, made.bytes()->bytes);
  const auto told = SimNcclId::Of(machine, *made.bytes());
  ASSERT_TRUE(told.ok()) << told.status();
  auto first = SimNcclComm::InitRank(made, 2, 0, 0);
  auto second = SimNcclComm::InitRank(*told, 2, 1, 1);
  ASSERT_TRUE(first.ok() && second.ok());
  int polls = 0;
  while (*(*first)->GetAsyncError() == NcclState::kInProgress) {
    ASSERT_LT(++polls, 10);
  }

  auto elsewhere = std::make_shared<SimMachine>(SimOptions{.num_devices = 2});
  EXPECT_EQ(SimNcclId::Of(elsewhere, *made.bytes()).status().code(),
            absl::StatusCode::kInvalidArgument);
  DeviceGroupId damaged = *made.bytes();
  damaged.bytes[16] = std::byte{2};  // of a third id
  EXPECT_EQ(SimNcclId::Of(machine, damaged).status().code(),
            absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(SimNcclId::Of(machine, DeviceGroupId()).status().code(),
            absl::StatusCode::kInvalidArgument);
}

TEST(SimNccl, FinalizeIsInProgressUntilAllRanksHaveLeft) {
  Ranks ranks(1, 2);
  ASSERT_TRUE(ranks.comm(0).Finalize().ok());
  EXPECT_EQ(*ranks.comm(0).GetAsyncError(), NcclState::kInProgress);
  ASSERT_TRUE(ranks.comm(1).Finalize().ok());
  EXPECT_EQ(*ranks.comm(0).GetAsyncError(), NcclState::kSuccess);
  EXPECT_TRUE(ranks.machine().status().ok());
}

TEST(PlantedBug, ACollectiveThatOneRankDoesNotEnterIsFoundAndNamed) {
  for (uint64_t seed = 1; seed <= kSeeds; ++seed) {
    Ranks ranks(seed);
    for (const int rank : {0, 1, 3}) {
      ranks.Gather(rank, ranks.Ints(rank, {rank}), ranks.Ints(rank, {0, 0, 0, 0}));
    }
    EXPECT_FALSE(ranks.stream(0).Synchronize().ok());
    const auto found = ranks.Found(FindingKind::kPartialCollective);
    ASSERT_EQ(found.size(), 1U) << "seed " << seed;
    EXPECT_THAT(found[0].ToString(),
                HasSubstr("partial collective in ncclAllGather: communicator 0, "
                          "collective 0, ncclAllGather of 1 x I32: entered by ranks "
                          "0, 1, 3, missing ranks 2"));
    EXPECT_THAT(ranks.machine().status().ToString(), HasSubstr("missing ranks 2"));
    for (int rank = 0; rank < 4; ++rank) {
      ranks.comm(rank).Abort();
    }
  }
}

TEST(PlantedBug, AReceiveThatNobodySendsIsFoundAndNamed) {
  for (uint64_t seed = 1; seed <= kSeeds; ++seed) {
    Ranks ranks(seed, 2);
    // Each waits for the other: a group would have sent both at once.
    for (int rank = 0; rank < 2; ++rank) {
      ranks.Send(rank, ranks.Ints(rank, {1}), 1 - rank);
      EXPECT_TRUE(ranks.Settle(rank));
      ranks.Recv(rank, ranks.Ints(rank, {1}), 1 - rank);
      EXPECT_TRUE(ranks.Settle(rank));
    }
    EXPECT_FALSE(ranks.stream(1).Synchronize().ok());
    EXPECT_THAT(ranks.machine().findings()[0].ToString(),
                HasSubstr("partial collective in ncclSend: communicator 0: ncclSend of "
                          "1 x I32 to rank 1 by rank 0: rank 1 has not entered its "
                          "ncclRecv"));
    ranks.comm(0).Abort();
    ranks.comm(1).Abort();
  }
}

TEST(PlantedBug, RanksThatWantDifferentThingsAreFoundAndNamed) {
  for (uint64_t seed = 1; seed <= kSeeds; ++seed) {
    Ranks ranks(seed, 2);
    ranks.Gather(0, ranks.Ints(0, {0, 0}), ranks.Ints(0, {0, 0, 0, 0}));
    ranks.Gather(1, ranks.Ints(1, {0}), ranks.Ints(1, {0, 0, 0, 0}));
    ranks.Send(0, ranks.Ints(0, {0, 0, 0}), 1);
    ranks.Recv(1, ranks.Ints(1, {0}), 0);
    EXPECT_TRUE(ranks.Settle(0) && ranks.Settle(1));
    EXPECT_FALSE(ranks.stream(0).Synchronize().ok());
    EXPECT_FALSE(ranks.stream(1).Synchronize().ok());
    const auto found = ranks.Found(FindingKind::kMismatchedCollective);
    ASSERT_EQ(found.size(), 2U);
    EXPECT_THAT(found[0].detail, HasSubstr("ncclAllGather of 1 x I32"));
    EXPECT_THAT(found[0].detail, HasSubstr("ncclAllGather of 2 x I32"));
    EXPECT_THAT(found[1].detail, HasSubstr("ncclRecv of 1 x I32 from rank 0 by rank 1 "
                                           "meets ncclSend of 3 x I32"));
  }
}

// As graphs of two batch sizes that one step launches.
TEST(PlantedBug, GraphsThatDoNotBelongTogetherAreFoundAndNamed) {
  for (uint64_t seed = 1; seed <= kSeeds; ++seed) {
    Ranks ranks(seed, 2);
    for (int rank = 0; rank < 2; ++rank) {
      const auto x = ranks.Ints(
          rank, rank == 0 ? std::vector<int32_t>{1, 2} : std::vector<int32_t>{3});
      const auto all = ranks.Ints(rank, {0, 0, 0, 0});
      ASSERT_TRUE(ranks.stream(rank).BeginCapture().ok());
      ranks.Gather(rank, x, all);
      ASSERT_TRUE(ranks.Settle(rank));
      auto graph = ranks.stream(rank).EndCapture();
      ASSERT_TRUE(graph.ok()) << graph.status();
      ASSERT_TRUE(ranks.stream(rank).Launch(*graph).ok());
    }
    EXPECT_FALSE(ranks.stream(0).Synchronize().ok());
    const auto found = ranks.Found(FindingKind::kMismatchedCollective);
    ASSERT_EQ(found.size(), 1U) << "seed " << seed;
    EXPECT_THAT(found[0].detail, HasSubstr("ncclAllGather of 1 x I32"));
    EXPECT_THAT(found[0].detail, HasSubstr("ncclAllGather of 2 x I32"));
  }
}

TEST(PlantedBug, BuffersOfOperationsAreCheckedLikeThoseOfKernels) {
  for (uint64_t seed = 1; seed <= kSeeds; ++seed) {
    Ranks ranks(seed, 2);
    const auto x = ranks.Ints(0, {1, 2});
    const auto y = ranks.Ints(1, {0, 0});
    ranks.Send(0, {x.data + 1, 2}, 1);  // one element too far
    ranks.Recv(1, y, 0);
    EXPECT_TRUE(ranks.Settle(0) && ranks.Settle(1));
    EXPECT_FALSE(ranks.stream(1).Synchronize().ok());
    EXPECT_EQ(ranks.Found(FindingKind::kOutOfBounds).size(), 1U);
    // A kernel of another stream that did not wait for the receive.
    auto side = ranks.Side(1);
    ranks.Send(0, x, 1);
    ranks.Recv(1, y, 0);
    EXPECT_TRUE(ranks.Settle(0) && ranks.Settle(1));
    EXPECT_TRUE(side->LaunchKernel(
                        "ReadKernel", {},
                        [=](SimThread& thread) { static_cast<void>(thread.Load(y, 0)); })
                    .ok());
    EXPECT_FALSE(side->Synchronize().ok());
    static_cast<void>(ranks.stream(1).Synchronize());
    EXPECT_FALSE(ranks.Found(FindingKind::kStreamDependency).empty()) << "seed " << seed;
  }
}

TEST(PlantedBug, OneGroupThatReceivesWhereItSendsIsARace) {
  Ranks ranks(1, 2);
  for (int rank = 0; rank < 2; ++rank) {
    const auto x = ranks.Ints(rank, {1, 2});
    ASSERT_TRUE(ranks.comm(rank).GroupStart().ok());
    ranks.Send(rank, x, 1 - rank);
    ranks.Recv(rank, x, 1 - rank);
    ASSERT_TRUE(ranks.comm(rank).GroupEnd().ok());
    EXPECT_TRUE(ranks.Settle(rank));
  }
  EXPECT_FALSE(ranks.stream(0).Synchronize().ok());
  EXPECT_THAT(ranks.Found(FindingKind::kRace)[0].detail, HasSubstr("rank 0"));
}

TEST(PlantedBug, ACommunicatorIsNotUsedOnTwoStreamsThatNothingOrders) {
  for (uint64_t seed = 1; seed <= kSeeds; ++seed) {
    Ranks ranks(seed, 2);
    auto side = ranks.Side(0);
    const auto x = ranks.Ints(0, {1});
    ranks.Send(0, x, 1);
    EXPECT_TRUE(ranks.Settle(0));
    ASSERT_TRUE(ranks.comm(0).Send(x.data, 1, DType::kI32, 1, *side).ok());
    EXPECT_TRUE(ranks.Settle(0));
    ranks.Recv(1, ranks.Ints(1, {0}), 0);
    EXPECT_TRUE(ranks.Settle(1));
    ranks.Recv(1, ranks.Ints(1, {0}), 0);
    EXPECT_TRUE(ranks.Settle(1));
    static_cast<void>(ranks.stream(0).Synchronize());
    static_cast<void>(side->Synchronize());
    EXPECT_FALSE(ranks.Found(FindingKind::kStreamDependency).empty()) << "seed " << seed;
  }
}

TEST(SimNccl, AbortEndsWhatWaitsAndMayBeSeenByPeers) {
  std::set<bool> seen;
  for (uint64_t seed = 1; seed <= kSeeds; ++seed) {
    Ranks ranks(seed, 2);
    const auto x = ranks.Ints(0, {5});
    ranks.Recv(0, x, 1);
    EXPECT_TRUE(ranks.Settle(0));
    ranks.comm(0).Abort();
    EXPECT_THAT(ranks.Get(0, x), testing::ElementsAre(5));
    EXPECT_TRUE(ranks.machine().status().ok()) << ranks.machine().status();
    seen.insert(*ranks.comm(1).GetAsyncError() == NcclState::kRemoteError);
  }
  EXPECT_EQ(seen, (std::set<bool>{false, true}));
}

TEST(SimNccl, RevokeEndsWhatWaitsAndLeavesTheCommunicatorToBeDestroyed) {
  Ranks ranks(1, 2);
  const auto x = ranks.Ints(0, {5});
  ranks.Recv(0, x, 1);
  EXPECT_TRUE(ranks.Settle(0));
  ASSERT_TRUE(ranks.comm(0).Revoke().ok());
  EXPECT_THAT(ranks.Get(0, x), testing::ElementsAre(5));
  EXPECT_EQ(*ranks.comm(0).GetAsyncError(), NcclState::kSuccess);
  EXPECT_TRUE(ranks.machine().status().ok()) << ranks.machine().status();
  EXPECT_EQ(ranks.comm(0).GroupStart().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(ranks.machine().status().ToString(), HasSubstr("was revoked"));
}

TEST(PlantedBug, AUseOfAnAbortedCommunicatorIsFoundAndNamed) {
  Ranks ranks(1, 2);
  const auto x = ranks.Ints(0, {5});
  ranks.comm(0).Abort();
  EXPECT_EQ(
      ranks.comm(0).Send(x.data, 1, DType::kI32, 1, ranks.stream(0)).status().code(),
      absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(ranks.Found(FindingKind::kDeadCommunicator)[0].ToString(),
              HasSubstr("use of a dead communicator in ncclSend: rank 0 of communicator "
                        "0 was aborted"));
}

TEST(PlantedBug, ACommunicatorThatIsDestroyedWhileItWorksIsFound) {
  Ranks ranks(1, 2);
  ranks.Recv(0, ranks.Ints(0, {5}), 1);
  EXPECT_TRUE(ranks.Settle(0));
  ranks.Destroy(0);
  EXPECT_EQ(ranks.Found(FindingKind::kDeadCommunicator).size(), 1U);
}

}  // namespace
}  // namespace tessera::kernels::cuda_sim
