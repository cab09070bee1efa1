#include "routing/expert_placement.h"

#include <algorithm>
#include <vector>

#include "gtest/gtest.h"

namespace tessera::routing {
namespace {

TEST(ExpertPlacement, StaticRunsAreContiguousAndDifferByAtMostOne) {
  for (int num_ranks = 1; num_ranks <= 9; ++num_ranks) {
    for (int num_experts = num_ranks; num_experts <= 40; ++num_experts) {
      const auto ranks = StaticPlacement(num_experts, num_ranks);
      ASSERT_TRUE(ranks.ok());
      ASSERT_EQ(ranks->size(), static_cast<size_t>(num_experts));
      EXPECT_TRUE(std::is_sorted(ranks->begin(), ranks->end()));
      std::vector<int> counts(static_cast<size_t>(num_ranks), 0);
      for (const int rank : *ranks) {
        ++counts.at(static_cast<size_t>(rank));
      }
      const auto [least, most] = std::minmax_element(counts.begin(), counts.end());
      EXPECT_GE(*least, 1);
      EXPECT_LE(*most - *least, 1);
    }
  }
}

TEST(ExpertPlacement, StaticPlacementIsTheBlockLayoutWhereItDivides) {
  EXPECT_EQ(*StaticPlacement(8, 4), (std::vector<int>{0, 0, 1, 1, 2, 2, 3, 3}));
}

TEST(ExpertPlacement, RefusesCountsThatLeaveARankWithoutAnExpert) {
  EXPECT_EQ(StaticPlacement(3, 4).status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(StaticPlacement(0, 1).status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(StaticPlacement(4, 0).status().code(), absl::StatusCode::kInvalidArgument);
}

TEST(ExpertPlacement, ValidationNamesTheOffender) {
  ExpertPlacement placement = *MakeStaticPlacement(4, 2, 7);
  EXPECT_EQ(placement.version, 7u);
  EXPECT_TRUE(ValidatePlacement(placement).ok());
  placement.rank_of_expert[2] = 2;
  EXPECT_EQ(ValidatePlacement(placement).message(),
            "expert 2 on rank 2, expected 0 to 1");
  placement.rank_of_expert = {0, 0, 0, 0};
  EXPECT_EQ(ValidatePlacement(placement).message(), "rank 1 holds no expert");
}

TEST(ExpertPlacement, ExpertsOfRankPartitionTheExperts) {
  const ExpertPlacement placement = *MakeStaticPlacement(7, 3, 1);
  EXPECT_EQ(ExpertsOfRank(placement, 0), (std::vector<int>{0, 1, 2}));
  EXPECT_EQ(ExpertsOfRank(placement, 1), (std::vector<int>{3, 4}));
  EXPECT_EQ(ExpertsOfRank(placement, 2), (std::vector<int>{5, 6}));
  EXPECT_TRUE(ExpertsOfRank(placement, 3).empty());
}

}  // namespace
}  // namespace tessera::routing
