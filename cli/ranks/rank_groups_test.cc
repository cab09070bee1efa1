#include "cli/ranks/rank_groups.h"

#include <array>
#include <memory>
#include <span>
#include <thread>
#include <vector>

#include "gtest/gtest.h"

#include "common/clock.h"
#include "kernels/backend_traits.h"
#include "kernels/local_devices.h"
#include "kernels/tensor_view.h"

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
  absl::StatusOr<std::vector<std::unique_ptr<kernels::DeviceCollectives>>> Connect(
      std::span<const int> ranks) override {
    connected_.emplace_back(ranks.begin(), ranks.end());
    return devices_->Connect(ranks);
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

}  // namespace
}  // namespace tessera::cli
