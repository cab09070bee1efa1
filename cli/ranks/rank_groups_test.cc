#include "cli/ranks/rank_groups.h"

#include <algorithm>
#include <array>
#include <map>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "gtest/gtest.h"

#include "common/clock.h"
#include "common/mutex.h"
#include "kernels/backend_traits.h"
#include "kernels/local_devices.h"
#include "kernels/tensor_view.h"
#include "worker/comm/in_process/in_process_group.h"

namespace tessera::cli {
namespace {

using kernels::LocalDevices;
using Lists = std::vector<std::vector<int>>;

// Notes which ranks are connected.
class WatchedDevices final : public LocalDevices {
 public:
  explicit WatchedDevices(std::unique_ptr<LocalDevices> devices)
      : devices_(std::move(devices)) {}

  absl::StatusOr<std::unique_ptr<kernels::KernelBackend>> CreateBackend(
      int rank) override {
    return devices_->CreateBackend(rank);
  }
  bool has_collectives() const override { return devices_->has_collectives(); }
  bool reaches_processes() const override { return false; }
  kernels::DeviceIdentity identity(int rank) const override {
    return devices_->identity(rank);
  }
  absl::StatusOr<kernels::DeviceGroupId> NewGroupId() override {
    connected_.emplace_back();
    return devices_->NewGroupId();
  }
  absl::StatusOr<std::unique_ptr<kernels::DeviceCollectives>> JoinGroup(
      const kernels::DeviceGroupId& id, int size, int rank, int local) override {
    connected_.back().push_back(local);
    return devices_->JoinGroup(id, size, rank, local);
  }
  const Lists& connected() const { return connected_; }

 private:
  const std::unique_ptr<LocalDevices> devices_;
  Lists connected_;
};

constexpr GroupShape kTwoNodes = {.tp = 2, .dp = 2, .ranks_per_node = 2};

// Each rank adds 2^rank over each of its groups; what it should get names who is in them.
void ExpectSums(const std::vector<RankGroups>& ranks) {
  // Over tp, ep, node and rail.
  constexpr std::array<std::array<float, 4>, 4> kSums = {
      {{3, 15, 3, 5}, {3, 15, 3, 10}, {12, 15, 12, 5}, {12, 15, 12, 10}}};
  std::array<std::array<float, 4>, 4> sums = {};
  std::vector<std::thread> threads;
  for (size_t rank = 0; rank < ranks.size(); ++rank) {
    threads.emplace_back([&, rank] {
      const RankGroups& groups = ranks[rank];
      size_t at = 0;
      for (const auto* group : {&groups.tp, &groups.ep, &groups.node, &groups.rail}) {
        float& sum = sums[rank][at++];
        sum = static_cast<float>(1 << rank);
        EXPECT_TRUE((*group)->AllReduceSum({&sum, model::DType::kF32, {1}}).ok());
      }
    });
  }
  for (std::thread& thread : threads) {
    thread.join();
  }
  EXPECT_EQ(sums, kSums);
}

TEST(MakeLocalGroups, RunOverTheCollectivesOfDevices) {
  if (kernels::NumericsFamily("cuda") == "cuda") {
    GTEST_SKIP() << "skipped: ranks of one process share the GPU of this build";
  }
  WatchedDevices devices(*kernels::CreateLocalDevices({.name = "cuda"}, 4));
  const auto ranks = MakeLocalGroups(kTwoNodes, &devices, {}, Clock::Real());
  ASSERT_TRUE(ranks.ok()) << ranks.status();
  EXPECT_EQ(devices.connected(),
            (Lists{{0, 1, 2, 3}, {0, 1}, {2, 3}, {0, 1}, {2, 3}, {0, 2}, {1, 3}}));
  ExpectSums(*ranks);
}

TEST(MakeLocalGroups, RunThroughMemoryWhereDevicesHaveNoCollectives) {
  WatchedDevices devices(*kernels::CreateLocalDevices({.name = "reference"}, 4));
  const auto ranks = MakeLocalGroups(kTwoNodes, &devices, {}, Clock::Real());
  ASSERT_TRUE(ranks.ok()) << ranks.status();
  EXPECT_TRUE(devices.connected().empty());
  ExpectSums(*ranks);
}

TEST(MakeLocalGroups, RefusesNodesThatDoNotDivideTheRanks) {
  EXPECT_EQ(
      MakeLocalGroups({.tp = 2, .dp = 2, .ranks_per_node = 3}, nullptr, {}, Clock::Real())
          .status()
          .code(),
      absl::StatusCode::kInvalidArgument);
}

// ---- ranks that are processes, as threads ----

// A job of threads whose groups are in-process ones.
class ThreadJob {
 public:
  explicit ThreadJob(int size) : next_call_(static_cast<size_t>(size)) {}
  int size() const { return static_cast<int>(next_call_.size()); }

  absl::StatusOr<std::unique_ptr<worker::Communicator>> CreateGroup(
      int rank, const std::string& name, int color, const worker::CommOptions& options) {
    MutexLock lock(&mutex_);
    Call& call = calls_[next_call_[static_cast<size_t>(rank)]++];
    call.members[color].push_back(rank);
    call.num_come += 1;
    if (call.num_come == size()) {
      for (auto& [of, members] : call.members) {
        std::sort(members.begin(), members.end());
      }
    }
    const auto all_have_come = [&] { return call.num_come == size(); };
    mutex_.Await(Condition(&all_have_come));
    const std::vector<int>& members = call.members[color];
    auto& group = call.groups[color];
    if (group.empty()) {
      group = *worker::CreateInProcessGroup(name, static_cast<int>(members.size()),
                                            options, Clock::Real());
    }
    const auto at = std::find(members.begin(), members.end(), rank) - members.begin();
    return std::move(group[static_cast<size_t>(at)]);
  }

 private:
  struct Call {
    int num_come = 0;
    std::map<int, std::vector<int>> members;  // by color
    std::map<int, std::vector<std::unique_ptr<worker::Communicator>>> groups;
  };
  Mutex mutex_;
  std::map<int, Call> calls_;
  std::vector<int> next_call_;  // of each rank
};

class ThreadProcess final : public ProcessGroup {
 public:
  ThreadProcess(ThreadJob* job, int rank) : job_(job), rank_(rank) {}
  int rank() const override { return rank_; }
  int size() const override { return job_->size(); }
  absl::StatusOr<std::unique_ptr<worker::Communicator>> CreateGroup(
      const std::string& name, int color, const worker::CommOptions& options) override {
    return job_->CreateGroup(rank_, name, color, options);
  }
  absl::Status Finalize() override { return absl::OkStatus(); }

 private:
  ThreadJob* const job_;
  const int rank_;
};

// The devices of one machine as if they reached other processes.
class ReachingDevices final : public LocalDevices {
 public:
  ReachingDevices(LocalDevices* devices, Mutex* mutex, bool share_a_device)
      : devices_(devices), mutex_(mutex), share_a_device_(share_a_device) {}
  absl::StatusOr<std::unique_ptr<kernels::KernelBackend>> CreateBackend(
      int rank) override {
    return devices_->CreateBackend(rank);
  }
  bool has_collectives() const override { return true; }
  bool reaches_processes() const override { return true; }
  kernels::DeviceIdentity identity(int rank) const override {
    return devices_->identity(share_a_device_ ? rank / 2 : rank);
  }
  absl::StatusOr<kernels::DeviceGroupId> NewGroupId() override {
    MutexLock lock(mutex_);
    return devices_->NewGroupId();
  }
  absl::StatusOr<std::unique_ptr<kernels::DeviceCollectives>> JoinGroup(
      const kernels::DeviceGroupId& id, int size, int rank, int local) override {
    MutexLock lock(mutex_);
    return devices_->JoinGroup(id, size, rank, local);
  }

 private:
  LocalDevices* const devices_;
  Mutex* const mutex_;
  const bool share_a_device_;
};

// What each rank of a job says; rank 3 is of `last_epoch`.
std::vector<absl::StatusOr<RankGroups>> Join(LocalDevices* devices, uint64_t last_epoch) {
  ThreadJob job(kTwoNodes.num_ranks());
  std::vector<absl::StatusOr<RankGroups>> results(static_cast<size_t>(job.size()));
  std::vector<std::thread> threads;
  for (int rank = 0; rank < job.size(); ++rank) {
    threads.emplace_back([&, rank] {
      ThreadProcess process(&job, rank);
      const worker::ProcessRank own = {
          .devices = devices, .local = rank, .epoch = rank == 3 ? last_epoch : 1};
      results[static_cast<size_t>(rank)] =
          JoinGroups(process, kTwoNodes, own, {}, Clock::Real());
    });
  }
  for (std::thread& thread : threads) {
    thread.join();
  }
  return results;
}

// Whether the groups are over devices: tp, ep, node, rail.
std::array<bool, 4> OverDevices(const RankGroups& groups) {
  return {groups.tp->on_stream() != nullptr, groups.ep->on_stream() != nullptr,
          groups.node->on_stream() != nullptr, groups.rail->on_stream() != nullptr};
}

class JoinGroupsTest : public ::testing::Test {
 protected:
  void SetUp() override {
    if (kernels::NumericsFamily("cuda") == "cuda") {
      GTEST_SKIP() << "skipped: the devices of this build are GPUs";
    }
    machine_ = *kernels::CreateLocalDevices({.name = "cuda"}, kTwoNodes.num_ranks());
  }
  // All have joined.
  std::vector<RankGroups> JoinAll(LocalDevices* devices) {
    std::vector<RankGroups> ranks;
    for (absl::StatusOr<RankGroups>& groups : Join(devices, 1)) {
      EXPECT_TRUE(groups.ok()) << groups.status();
      ranks.push_back(groups.ok() ? *std::move(groups) : RankGroups());
    }
    return ranks;
  }

  std::unique_ptr<LocalDevices> machine_;
  Mutex mutex_;
};

TEST_F(JoinGroupsTest, RunOverDevicesThatReachOtherProcesses) {
  ReachingDevices devices(machine_.get(), &mutex_, false);
  const std::vector<RankGroups> ranks = JoinAll(&devices);
  for (const RankGroups& groups : ranks) {
    EXPECT_EQ(OverDevices(groups), (std::array<bool, 4>{true, true, true, true}));
    EXPECT_EQ(groups.ep->name(), "ep");
  }
  ExpectSums(ranks);
}

TEST_F(JoinGroupsTest, RunOverTheJobWhereDevicesDoNot) {
  const std::vector<RankGroups> ranks = JoinAll(machine_.get());
  EXPECT_EQ(OverDevices(ranks[0]), (std::array<bool, 4>{}));
  ExpectSums(ranks);
}

// Ranks 0 and 1 have one device, 2 and 3 another. The rails' pairs have two, and yet.
TEST_F(JoinGroupsTest, RunOverTheJobWhereRanksShareADevice) {
  ReachingDevices devices(machine_.get(), &mutex_, true);
  const std::vector<RankGroups> ranks = JoinAll(&devices);
  for (const RankGroups& groups : ranks) {
    EXPECT_EQ(OverDevices(groups), (std::array<bool, 4>{}));
  }
  ExpectSums(ranks);
}

TEST_F(JoinGroupsTest, AProcessOfAnotherEpochIsRefusedByAll) {
  ReachingDevices devices(machine_.get(), &mutex_, false);
  for (const absl::StatusOr<RankGroups>& groups : Join(&devices, 2)) {
    EXPECT_EQ(groups.status().code(), absl::StatusCode::kFailedPrecondition)
        << groups.status();
  }
}

}  // namespace
}  // namespace tessera::cli
