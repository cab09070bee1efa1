#include "coordinator/console/expert_loads.h"

#include <limits>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

#include "common/clock.h"

namespace tessera::coordinator {
namespace {

using ::testing::Each;
using ::testing::ElementsAre;

class ExpertLoadsTest : public ::testing::Test {
 protected:
  // Layers 3 and 4 of three experts on two ranks.
  SimulatedClock clock_{absl::FromUnixSeconds(1000)};
  ExpertLoads loads_{{.first_layer = 3, .num_layers = 2, .rank_of_expert = {0, 0, 1}},
                     &clock_};
};

TEST_F(ExpertLoadsTest, ReportsOfAllRanksAddUp) {
  loads_.Add(std::vector<uint32_t>{1, 2, 3, 4, 5, 6});
  loads_.Add(std::vector<uint32_t>{10, 0, 0, 0, 0, 60});
  const ExpertLoadCounts read = loads_.Read();
  EXPECT_THAT(read.recent, ElementsAre(11, 2, 3, 4, 5, 66));
  EXPECT_EQ(read.total, read.recent);
  EXPECT_THAT(read.recent_of(loads_.shape(), 1), ElementsAre(4, 5, 66));
  EXPECT_THAT(read.total_of(loads_.shape(), 0), ElementsAre(11, 2, 3));
}

TEST_F(ExpertLoadsTest, AMinuteLaterOnlyTheTotalIsLeft) {
  loads_.Add(std::vector<uint32_t>{1, 2, 3, 4, 5, 6});
  clock_.Advance(absl::Seconds(49));
  loads_.Add(std::vector<uint32_t>{0, 0, 7, 0, 0, 0});
  EXPECT_THAT(loads_.Read().recent, ElementsAre(1, 2, 10, 4, 5, 6));
  clock_.Advance(absl::Seconds(11));
  EXPECT_THAT(loads_.Read().recent, ElementsAre(0, 0, 7, 0, 0, 0));
  EXPECT_THAT(loads_.Read().total, ElementsAre(1, 2, 10, 4, 5, 6));
  clock_.Advance(absl::Hours(300));
  EXPECT_THAT(loads_.Read().recent, Each(0));
  loads_.Add(std::vector<uint32_t>{1, 0, 0, 0, 0, 0});
  clock_.Advance(absl::Seconds(49));
  EXPECT_THAT(loads_.Read().recent, ElementsAre(1, 0, 0, 0, 0, 0));
  EXPECT_THAT(loads_.Read().total, ElementsAre(2, 2, 10, 4, 5, 6));
}

TEST_F(ExpertLoadsTest, TheLargestReportsDoNotWrap) {
  const std::vector<uint32_t> largest(6, std::numeric_limits<uint32_t>::max());
  loads_.Add(largest);
  loads_.Add(largest);
  EXPECT_THAT(loads_.Read().total, Each(uint64_t{0x1fffffffe}));
}

TEST(Imbalance, IsLargestOverMean) {
  EXPECT_EQ(ImbalanceOf(std::vector<uint64_t>{2, 2, 2, 2}), 1.0);
  EXPECT_EQ(ImbalanceOf(std::vector<uint64_t>{8, 0, 0, 0}), 4.0);
  EXPECT_EQ(ImbalanceOf(std::vector<uint64_t>{1, 3}), 1.5);
  EXPECT_EQ(ImbalanceOf(std::vector<uint64_t>{0, 0}), std::nullopt);
  EXPECT_EQ(ImbalanceOf({}), std::nullopt);
}

}  // namespace
}  // namespace tessera::coordinator
