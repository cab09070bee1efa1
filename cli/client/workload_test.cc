#include "cli/client/workload.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

#include "tests/testing/status_matchers.h"

namespace tessera::cli {
namespace {

using ::tessera::testing::IsOk;
using ::tessera::testing::StatusIs;

WorkloadOptions Small() {
  WorkloadOptions options;
  options.num_prompts = 50;
  options.input_len = 20;
  options.output_len = 10;
  options.seed = 7;
  return options;
}

std::vector<PlannedRequest> Plan(const WorkloadOptions& options) {
  auto plan = PlanWorkload(options);
  EXPECT_THAT(plan, IsOk());
  return plan.ok() ? *std::move(plan) : std::vector<PlannedRequest>();
}

TEST(Workload, TheSameSeedGivesTheSamePrompts) {
  const auto a = Plan(Small());
  const auto b = Plan(Small());
  WorkloadOptions other = Small();
  other.seed = 8;
  const auto c = Plan(other);
  EXPECT_EQ(a.at(3).prompt_ids, b.at(3).prompt_ids);
  EXPECT_NE(a.at(3).prompt_ids, c.at(3).prompt_ids);
  EXPECT_NE(a.at(3).prompt_ids, a.at(4).prompt_ids);
}

TEST(Workload, IdsStayInTheirRangeAndReachBothEnds) {
  WorkloadOptions options = Small();
  options.id_begin = 5;
  options.id_end = 9;
  const auto plan = Plan(options);
  int32_t low = 100;
  int32_t high = 0;
  for (const PlannedRequest& request : plan) {
    for (const int32_t id : request.prompt_ids) {
      low = std::min(low, id);
      high = std::max(high, id);
    }
  }
  EXPECT_EQ(low, 5);
  EXPECT_EQ(high, 8);
}

TEST(Workload, LengthsAreExactWithoutARatioAndSpreadWithOne) {
  WorkloadOptions options = Small();
  for (const PlannedRequest& request : Plan(options)) {
    EXPECT_EQ(request.prompt_ids.size(), 20U);
    EXPECT_EQ(request.output_len, 10);
  }
  options.range_ratio = 0.5;
  size_t shortest = 100;
  size_t longest = 0;
  for (const PlannedRequest& request : Plan(options)) {
    shortest = std::min(shortest, request.prompt_ids.size());
    longest = std::max(longest, request.prompt_ids.size());
    EXPECT_GE(request.output_len, 5);
    EXPECT_LE(request.output_len, 15);
  }
  EXPECT_GE(shortest, 10U);
  EXPECT_LE(longest, 30U);
  EXPECT_LT(shortest, longest);
}

TEST(Workload, PromptsShareTheirPrefixAndNoMore) {
  WorkloadOptions options = Small();
  options.prefix_len = 8;
  const auto plan = Plan(options);
  const auto& a = plan.at(0).prompt_ids;
  const auto& b = plan.at(1).prompt_ids;
  ASSERT_EQ(a.size(), 28U);
  EXPECT_TRUE(std::equal(a.begin(), a.begin() + 8, b.begin()));
  EXPECT_FALSE(std::equal(a.begin() + 8, a.end(), b.begin() + 8));
}

TEST(Workload, AnInfiniteRateStartsEverythingAtOnce) {
  for (const PlannedRequest& request : Plan(Small())) {
    EXPECT_EQ(request.start, absl::ZeroDuration());
  }
}

TEST(Workload, ArrivalsFollowTheRateAndAreNotEven) {
  WorkloadOptions options = Small();
  options.num_prompts = 4000;
  options.input_len = 1;
  options.request_rate = 20;
  const auto plan = Plan(options);
  // The standard deviation of the mean gap is 1/sqrt(4000) = 1.6 % of it.
  const double mean_gap = absl::ToDoubleSeconds(plan.back().start) / 3999;
  EXPECT_NEAR(mean_gap, 0.05, 0.05 * 0.08);
  // Of exponential gaps, 1 - 1/e are shorter than the mean.
  int shorter = 0;
  for (size_t i = 1; i < plan.size(); ++i) {
    ASSERT_GE(plan[i].start, plan[i - 1].start);
    shorter += plan[i].start - plan[i - 1].start < absl::Seconds(0.05) ? 1 : 0;
  }
  EXPECT_NEAR(shorter / 3999.0, 0.632, 0.05);
}

TEST(Workload, RefusesWhatItCannotPlan) {
  const auto refused = [](auto change) {
    WorkloadOptions options = Small();
    change(&options);
    return PlanWorkload(options).status();
  };
  const auto is_bad = StatusIs(absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(refused([](auto* o) { o->num_prompts = 0; }), is_bad);
  EXPECT_THAT(refused([](auto* o) { o->input_len = 0; }), is_bad);
  EXPECT_THAT(refused([](auto* o) { o->output_len = 0; }), is_bad);
  EXPECT_THAT(refused([](auto* o) { o->request_rate = 0; }), is_bad);
  EXPECT_THAT(refused([](auto* o) { o->range_ratio = 1; }), is_bad);
  EXPECT_THAT(refused([](auto* o) { o->id_end = o->id_begin; }), is_bad);
  EXPECT_THAT(refused([](auto* o) { o->input_len = int64_t{1} << 40; }), is_bad);
}

}  // namespace
}  // namespace tessera::cli
