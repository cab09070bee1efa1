#include "cli/client/workload.h"

#include <algorithm>
#include <fstream>
#include <map>
#include <set>
#include <string>
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

TEST(Workload, ANewRateLeavesThePromptsAsTheyAre) {
  WorkloadOptions options = Small();
  const auto at_once = Plan(options);
  options.arrivals.request_rate = 5;
  const auto spread = Plan(options);
  EXPECT_EQ(spread.back().start, absl::Seconds(10));
  for (size_t i = 0; i < spread.size(); ++i) {
    EXPECT_EQ(spread[i].prompt_ids, at_once[i].prompt_ids);
  }
}

TEST(Workload, TextHasAWordForEachToken) {
  WorkloadOptions options = Small();
  options.as_text = true;
  options.prefix_len = 3;
  for (const PlannedRequest& request : Plan(options)) {
    EXPECT_TRUE(request.prompt_ids.empty());
    EXPECT_EQ(std::count(request.prompt_text.begin(), request.prompt_text.end(), ' '),
              22);
  }
}

TEST(Workload, RepeatedPrefixesAreSharedEvenlyAndSuffixesNot) {
  WorkloadOptions options = Small();
  options.dataset = Dataset::kPrefixRepetition;
  options.num_prefixes = 5;
  options.repeated_prefix_len = 8;
  options.repeated_suffix_len = 12;
  options.repeated_output_len = 3;
  std::map<std::vector<int32_t>, int> prefixes;
  std::set<std::vector<int32_t>> suffixes;
  for (const PlannedRequest& request : Plan(options)) {
    ASSERT_EQ(request.prompt_ids.size(), 20U);
    EXPECT_EQ(request.output_len, 3);
    const auto middle = request.prompt_ids.begin() + 8;
    ++prefixes[std::vector(request.prompt_ids.begin(), middle)];
    suffixes.insert(std::vector(middle, request.prompt_ids.end()));
  }
  EXPECT_EQ(prefixes.size(), 5U);
  for (const auto& [prefix, count] : prefixes) {
    EXPECT_EQ(count, 10);
  }
  EXPECT_EQ(suffixes.size(), 50U);
}

TEST(Workload, AFileWithTooFewPromptsIsUsedAgain) {
  const std::string path = ::testing::TempDir() + "/workload_test.jsonl";
  std::ofstream(path) << "{\"prompt\": \"a\"}\n{\"prompt\": \"b\"}\n";
  WorkloadOptions options = Small();
  options.dataset = Dataset::kCustom;
  options.num_prompts = 5;
  options.dataset_path = path;
  options.file_output_len = 9;
  std::string texts;
  for (const PlannedRequest& request : Plan(options)) {
    texts += request.prompt_text;
    EXPECT_EQ(request.output_len, 9);
  }
  EXPECT_THAT(texts, ::testing::AnyOf("ababa", "babab"));
  options.dataset_path = "";
  EXPECT_THAT(PlanWorkload(options), StatusIs(absl::StatusCode::kInvalidArgument));
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
  EXPECT_THAT(refused([](auto* o) { o->arrivals.request_rate = 0; }), is_bad);
  EXPECT_THAT(refused([](auto* o) { o->range_ratio = 1; }), is_bad);
  EXPECT_THAT(refused([](auto* o) { o->id_end = o->id_begin; }), is_bad);
  EXPECT_THAT(refused([](auto* o) { o->input_len = int64_t{1} << 40; }), is_bad);
  EXPECT_THAT(refused([](auto* o) {
                o->dataset = Dataset::kPrefixRepetition;
                o->num_prefixes = 51;
              }),
              is_bad);
}

}  // namespace
}  // namespace tessera::cli
