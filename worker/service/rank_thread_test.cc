#include "worker/service/rank_thread.h"

#include <atomic>

#include "absl/time/clock.h"
#include "gtest/gtest.h"

#include "common/mutex.h"
#include "tests/testing/status_matchers.h"

namespace tessera::worker {
namespace {

using proto::StepPlan;
using proto::StepResult;
using testing::IsOk;
using testing::StatusIs;

// The rules that every StepExecutor shares are in tests/conformance; these are about the
// thread.

StepPlan Plan(uint64_t step) {
  StepPlan plan;
  plan.step = step;
  return plan;
}

TEST(RankThread, NeedsAFunction) {
  EXPECT_THAT(RankThread::Create({.name = "rank 0"}, nullptr, nullptr),
              StatusIs(absl::StatusCode::kInvalidArgument));
}

TEST(RankThread, AFailedStepCallsTheHookOnceAndKeepsEarlierResults) {
  std::atomic<int> hooks = 0;
  auto rank = RankThread::Create(
      {.name = "rank 0"},
      [](const StepPlan& plan, proto::LateInputFunction) -> absl::StatusOr<StepResult> {
        if (plan.step == 1) {
          return absl::InternalError("broken");
        }
        return StepResult{.epoch = 0, .step = plan.step, .sampled = {}, .counters = {}};
      },
      [&](const absl::Status& reason) {
        EXPECT_EQ(reason.code(), absl::StatusCode::kInternal);
        ++hooks;
      });
  ASSERT_THAT(rank, IsOk());
  ASSERT_THAT((*rank)->Submit(Plan(0)), IsOk());
  ASSERT_THAT((*rank)->Submit(Plan(1)), IsOk());
  EXPECT_THAT((*rank)->Wait(absl::InfiniteFuture()), IsOk());
  EXPECT_THAT((*rank)->Wait(absl::InfiniteFuture()),
              StatusIs(absl::StatusCode::kInternal));
  EXPECT_THAT((*rank)->Submit(Plan(2)), StatusIs(absl::StatusCode::kInternal));
  rank->reset();
  EXPECT_EQ(hooks, 1);
}

TEST(RankThread, DestructionInterruptsTheStepThatRuns) {
  Notification started;
  Notification interrupted;
  auto rank = RankThread::Create(
      {.name = "rank 0"},
      [&](const StepPlan&, proto::LateInputFunction) -> absl::StatusOr<StepResult> {
        started.Notify();
        interrupted.WaitForNotification();
        return absl::AbortedError("interrupted");
      },
      [&](const absl::Status&) { interrupted.Notify(); });
  ASSERT_THAT(rank, IsOk());
  ASSERT_THAT((*rank)->Submit(Plan(0)), IsOk());
  started.WaitForNotification();
  rank->reset();
  EXPECT_TRUE(interrupted.HasBeenNotified());
}

TEST(RankThread, WaitWithNothingInFlightDoesNotBlock) {
  auto rank = RankThread::Create(
      {.name = "rank 0"},
      [](const StepPlan&, proto::LateInputFunction) { return StepResult(); }, nullptr);
  ASSERT_THAT(rank, IsOk());
  EXPECT_THAT((*rank)->Wait(absl::InfiniteFuture()),
              StatusIs(absl::StatusCode::kFailedPrecondition));
}

}  // namespace
}  // namespace tessera::worker
