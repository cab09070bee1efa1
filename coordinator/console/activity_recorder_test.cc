#include "coordinator/console/activity_recorder.h"

#include <string>
#include <vector>

#include "gtest/gtest.h"

#include "common/clock.h"
#include "coordinator/console/latency_counts.h"

namespace tessera::coordinator {
namespace {

StepObservation Step(const std::vector<proto::StepCounters>& counters) {
  StepObservation step;
  step.step_time = absl::Milliseconds(10);
  step.scheduler_time = absl::Milliseconds(1);
  step.num_prefill_tokens = 3;
  step.num_accepted_tokens = 2;
  step.rank_counters = counters;
  step.gauges.num_running = 4;
  step.gauges.blocks_total = 8;
  step.gauges.blocks_used = 2;
  return step;
}

class CountingObserver final : public EngineObserver {
 public:
  void OnStep(const StepObservation& /*step*/) override { ++steps; }
  void OnExpertCounts(std::span<const uint32_t> /*counts*/) override { ++expert_reports; }
  void OnRejected(const absl::Status& /*reason*/) override { ++rejections; }

  int steps = 0;
  int expert_reports = 0;
  int rejections = 0;
};

class ActivityRecorderTest : public ::testing::Test {
 protected:
  SimulatedClock clock_{absl::FromUnixSeconds(1000)};
  CountingObserver next_;
  ActivityRecorder recorder_{&next_, &clock_};
  const std::vector<proto::StepCounters> two_ranks_ = {
      {.step_ns = 4'000'000, .engram_rows = 5, .num_tokens = 7, .expert_imbalance = 2},
      {.step_ns = 6'000'000, .engram_rows = 6, .num_tokens = 8, .expert_imbalance = 3}};
};

TEST_F(ActivityRecorderTest, ASecondIsToldWhenItIsOver) {
  recorder_.OnStep(Step(two_ranks_));
  recorder_.OnStep(Step(two_ranks_));
  EXPECT_TRUE(recorder_.Read(true).recent.empty());
  clock_.Advance(absl::Seconds(1));
  const Activity seen = recorder_.Read(true);
  ASSERT_EQ(seen.recent.size(), 1u);
  const ActivitySample& sample = seen.recent[0];
  EXPECT_EQ(sample.end, absl::FromUnixSeconds(1001));
  EXPECT_EQ(sample.steps, 2);
  EXPECT_EQ(sample.prompt_tokens, 6);
  EXPECT_EQ(sample.generated_tokens, 4);
  EXPECT_EQ(sample.engram_rows, 22);
  EXPECT_EQ(sample.step_ms, 10.0);
  EXPECT_EQ(sample.expert_imbalance, 3.0);
  EXPECT_EQ(sample.running, 4);
  EXPECT_EQ(sample.kv_used_ratio, 0.25);
  EXPECT_EQ(sample.first_token_ms, std::nullopt);
  EXPECT_EQ(next_.steps, 2);
}

TEST_F(ActivityRecorderTest, ReportsOfRoutedItemsAreKept) {
  ExpertLoads experts({.first_layer = 0, .num_layers = 1, .rank_of_expert = {0, 0}},
                      &clock_);
  ActivityRecorder recorder(&next_, &clock_, &experts);
  recorder.OnExpertCounts(std::vector<uint32_t>{5, 6});
  EXPECT_EQ(experts.Read().total, (std::vector<uint64_t>{5, 6}));
  EXPECT_EQ(next_.expert_reports, 1);
}

TEST_F(ActivityRecorderTest, RanksKeepTheirLastSecondWhileNothingRuns) {
  recorder_.OnStep(Step(two_ranks_));
  clock_.Advance(absl::Seconds(1));
  for (int i = 0; i < 2; ++i) {
    const Activity seen = recorder_.Read(false);
    ASSERT_EQ(seen.ranks.size(), 2u);
    EXPECT_EQ(seen.ranks[0].step_ms, 4);
    EXPECT_EQ(seen.ranks[1].step_ms, 6);
    EXPECT_EQ(seen.ranks[1].tokens, 8);
    clock_.Advance(absl::Seconds(5));
  }
}

TEST_F(ActivityRecorderTest, HistoriesAreBoundedAndWithoutGaps) {
  recorder_.OnStep(Step(two_ranks_));
  clock_.Advance(absl::Hours(30));
  const Activity seen = recorder_.Read(true);
  ASSERT_EQ(seen.recent.size(), 300u);
  ASSERT_EQ(seen.past.size(), 300u);
  for (size_t i = 1; i < seen.recent.size(); ++i) {
    EXPECT_EQ(seen.recent[i].end - seen.recent[i - 1].end, absl::Seconds(1));
  }
  EXPECT_LE(seen.recent.back().end, clock_.Now());
  EXPECT_GT(seen.recent.back().end, clock_.Now() - absl::Seconds(1));
  EXPECT_EQ(recorder_.Read(false).recent.size(), 1u);
}

TEST_F(ActivityRecorderTest, FailuresAndRefusalsAreErrorsNewestFirst) {
  RequestObservation request;
  request.request_id = "r1";
  request.outcome = RequestOutcome::kError;
  request.code = absl::StatusCode::kDeadlineExceeded;
  recorder_.OnRequestFinished(request);
  request.outcome = RequestOutcome::kAbort;
  recorder_.OnRequestFinished(request);
  recorder_.OnRejected(absl::ResourceExhaustedError("queue full"));
  recorder_.OnGroupFailed(3, absl::UnavailableError("rank 1 ended"));
  clock_.Advance(absl::Seconds(1));
  const Activity seen = recorder_.Read(true);
  ASSERT_EQ(seen.errors.size(), 3u);
  EXPECT_EQ(seen.errors[0].kind, "group");
  EXPECT_EQ(seen.errors[0].subject, "epoch 3");
  EXPECT_EQ(seen.errors[0].message, "rank 1 ended");
  EXPECT_EQ(seen.errors[1].code, "resource_exhausted");
  EXPECT_EQ(seen.errors[2].subject, "r1");
  EXPECT_EQ(seen.recent[0].requests, 3);
  EXPECT_EQ(seen.recent[0].failed, 2);
  EXPECT_EQ(seen.totals.requests, 2);
  EXPECT_EQ(seen.totals.refused, 1);
  EXPECT_EQ(next_.rejections, 1);
}

TEST_F(ActivityRecorderTest, TheListOfErrorsIsBounded) {
  for (int i = 0; i < 200; ++i) {
    recorder_.OnRejected(absl::ResourceExhaustedError(std::to_string(i)));
  }
  const Activity seen = recorder_.Read(false);
  ASSERT_EQ(seen.errors.size(), 50u);
  EXPECT_EQ(seen.errors.front().message, "199");
  EXPECT_EQ(seen.totals.refused, 200);
}

TEST(LatencyCounts, QuantilesAreRightToABucket) {
  LatencyCounts counts;
  EXPECT_EQ(counts.Quantile(0.5), std::nullopt);
  for (int ms = 1; ms <= 1000; ++ms) {
    counts.Add(absl::Milliseconds(ms));
  }
  EXPECT_NEAR(*counts.Quantile(0.5), 500, 500 * 0.19);
  EXPECT_NEAR(*counts.Quantile(0.95), 950, 950 * 0.19);
  counts.Add(absl::ZeroDuration());
  counts.Add(absl::Hours(1));
  EXPECT_LT(*counts.Quantile(0), 0.02);
  EXPECT_GT(*counts.Quantile(1), 100000);
}

}  // namespace
}  // namespace tessera::coordinator
