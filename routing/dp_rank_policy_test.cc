#include "routing/dp_rank_policy.h"

#include <vector>

#include "gtest/gtest.h"

namespace tessera::routing {
namespace {

DpRankLoad Load(int64_t pending, int64_t sequences, int64_t free, int64_t cached) {
  return {.has_free_slot = true,
          .pending_tokens = pending,
          .num_sequences = sequences,
          .blocks_free = free,
          .cached_tokens = cached};
}

const DpRankDemand kDemand = {.num_tokens = 64, .block_size = 16};

TEST(PickDpRank, TakesTheLeastLoadedRank) {
  const std::vector<DpRankLoad> loads = {Load(100, 3, 50, 0), Load(10, 3, 50, 0)};
  EXPECT_EQ(PickDpRank(loads, kDemand), 1);
}

TEST(PickDpRank, ACachedPrefixAttractsUntilTheRankIsBusierThanThePrefixIsLong) {
  EXPECT_EQ(PickDpRank(std::vector{Load(0, 1, 50, 0), Load(40, 1, 50, 48)}, kDemand), 1);
  EXPECT_EQ(PickDpRank(std::vector{Load(0, 1, 50, 0), Load(60, 1, 50, 48)}, kDemand), 0);
}

TEST(PickDpRank, OfRanksWithTheSameWorkTheOneThatHoldsLessIsTaken) {
  std::vector<DpRankLoad> loads = {Load(10, 3, 50, 0), Load(10, 3, 50, 0)};
  loads[0].blocks_used = 30;
  loads[1].blocks_used = 20;
  EXPECT_EQ(PickDpRank(loads, kDemand), 1);
}

TEST(PickDpRank, APrefixOutweighsWhatIsHeldUpToSixteenTimesItsLength) {
  std::vector<DpRankLoad> loads = {Load(0, 1, 900, 0), Load(0, 1, 500, 48)};
  loads[1].blocks_used = 47;
  EXPECT_EQ(PickDpRank(loads, kDemand), 1);
  loads[1].blocks_used = 49;
  EXPECT_EQ(PickDpRank(loads, kDemand), 0);
}

TEST(PickDpRank, TiesGoToMoreFreeBlocksThenToTheLowerRank) {
  EXPECT_EQ(PickDpRank(std::vector{Load(5, 1, 10, 0), Load(5, 1, 20, 0)}, kDemand), 1);
  EXPECT_EQ(PickDpRank(std::vector{Load(5, 1, 20, 0), Load(5, 1, 20, 0)}, kDemand), 0);
}

TEST(PickDpRank, RanksWithoutASlotOrBlocksDoNotQualify) {
  std::vector<DpRankLoad> loads = {Load(0, 0, 3, 0), Load(900, 9, 4, 0)};
  EXPECT_EQ(PickDpRank(loads, kDemand), 1);
  loads[1].has_free_slot = false;
  EXPECT_EQ(PickDpRank(loads, kDemand), std::nullopt);
}

}  // namespace
}  // namespace tessera::routing
