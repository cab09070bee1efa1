// The contract of StepExecutor on its two versions: a rank's thread in this process, and
// the same thread behind a StepServer and a plan stream on loopback.
#include <atomic>
#include <memory>
#include <string>
#include <utility>

#include "absl/time/clock.h"
#include "gtest/gtest.h"

#include "common/clock.h"
#include "common/mutex.h"
#include "coordinator/cluster/step_client.h"
#include "tests/testing/status_matchers.h"
#include "worker/service/rank_thread.h"
#include "worker/service/step_service.h"

namespace tessera {
namespace {

using proto::LateInput;
using proto::StepExecutor;
using proto::StepPlan;
using proto::StepResult;
using testing::IsOk;
using testing::StatusIs;
using Execute = worker::RankThread::ExecuteFunction;

constexpr char kToken[] = "group secret";
const absl::Time kNever = absl::InfiniteFuture();

StepPlan Plan(uint64_t step) {
  StepPlan plan;
  plan.epoch = 1;
  plan.step = step;
  plan.work = {{3, false, true, {static_cast<int32_t>(step) + 100}}};
  return plan;
}

// Answers each plan with its own token.
absl::StatusOr<StepResult> Answer(const StepPlan& plan) {
  StepResult result;
  result.epoch = plan.epoch;
  result.step = plan.step;
  result.sampled = {{3, plan.work[0].tokens[0], 0, 0, {}}};
  return result;
}

absl::StatusOr<StepResult> Echo(const StepPlan& plan, proto::LateInputFunction) {
  return Answer(plan);
}

StepPlan MaskedPlan(uint64_t step) {
  StepPlan plan = Plan(step);
  plan.work[0].masked = true;
  return plan;
}

LateInput Late(uint64_t step, uint32_t word) {
  return {.epoch = 1, .step = step, .masks = {{.slot = 3, .words = {word}}}};
}

// Answers each plan with the first word of its mask.
absl::StatusOr<StepResult> AnswerMask(const StepPlan& plan,
                                      proto::LateInputFunction late) {
  absl::StatusOr<LateInput> input = late();
  if (!input.ok()) {
    return input.status();
  }
  StepResult result{.epoch = plan.epoch, .step = plan.step};
  result.sampled = {{3, static_cast<int32_t>(input->masks[0].words[0]), 0, 0, {}}};
  return result;
}

// A rank and its executor; torn down from the coordinator's end to the rank's.
struct Rank {
  std::unique_ptr<worker::RankThread> thread;
  std::unique_ptr<worker::StepServer> server;
  std::unique_ptr<StepExecutor> client;
  StepExecutor* executor = nullptr;
};

class StepExecutorConformance : public ::testing::TestWithParam<bool> {
 protected:
  Rank Make(Execute execute, worker::RankThread::AbortHook hook = nullptr) {
    Rank rank;
    auto thread = worker::RankThread::Create({.name = "rank 0"}, std::move(execute),
                                             std::move(hook));
    EXPECT_THAT(thread, IsOk());
    rank.thread = std::move(thread).value();
    rank.executor = rank.thread.get();
    if (GetParam()) {
      worker::StepServerOptions options;
      options.auth_token = kToken;
      auto server = worker::StepServer::Create(options, rank.thread.get(), Clock::Real());
      EXPECT_THAT(server, IsOk());
      rank.server = std::move(server).value();
      auto client = coordinator::ConnectStepExecutor(
          {.address = rank.server->address(), .auth_token = kToken}, Clock::Real());
      EXPECT_THAT(client, IsOk());
      rank.client = std::move(client).value();
      rank.executor = rank.client.get();
    }
    return rank;
  }
};

TEST_P(StepExecutorConformance, ResultsComeInTheOrderOfThePlans) {
  Rank rank = Make(Echo);
  ASSERT_THAT(rank.executor->Submit(Plan(0)), IsOk());
  for (uint64_t step = 1; step <= 50; ++step) {
    ASSERT_THAT(rank.executor->Submit(Plan(step)), IsOk());
    const auto result = rank.executor->Wait(kNever);
    ASSERT_THAT(result, IsOk());
    EXPECT_EQ(*result, *Answer(Plan(step - 1)));
  }
}

TEST_P(StepExecutorConformance, RunsAheadByOneStepOnly) {
  Notification go;
  Rank rank = Make([&](const StepPlan& plan, proto::LateInputFunction) {
    go.WaitForNotification();
    return Answer(plan);
  });
  for (int i = 0; i < StepExecutor::kMaxInFlight; ++i) {
    ASSERT_THAT(rank.executor->Submit(Plan(0)), IsOk());
  }
  EXPECT_THAT(rank.executor->Submit(Plan(0)),
              StatusIs(absl::StatusCode::kResourceExhausted));
  go.Notify();
  EXPECT_THAT(rank.executor->Wait(kNever), IsOk());
  EXPECT_THAT(rank.executor->Submit(Plan(0)), IsOk());
}

TEST_P(StepExecutorConformance, ADeadlineLeavesThePlanInFlight) {
  Notification go;
  Rank rank = Make([&](const StepPlan& plan, proto::LateInputFunction) {
    go.WaitForNotification();
    return Answer(plan);
  });
  ASSERT_THAT(rank.executor->Submit(Plan(5)), IsOk());
  EXPECT_THAT(rank.executor->Wait(absl::Now() + absl::Milliseconds(5)),
              StatusIs(absl::StatusCode::kDeadlineExceeded));
  go.Notify();
  const auto result = rank.executor->Wait(kNever);
  ASSERT_THAT(result, IsOk());
  EXPECT_EQ(result->step, 5u);
}

TEST_P(StepExecutorConformance, TheErrorOfAStepEndsTheEpoch) {
  Rank rank = Make(
      [](const StepPlan& plan, proto::LateInputFunction) -> absl::StatusOr<StepResult> {
        if (plan.step == 1) {
          return absl::DataLossError("a weight is damaged");
        }
        return Answer(plan);
      });
  ASSERT_THAT(rank.executor->Submit(Plan(0)), IsOk());
  ASSERT_THAT(rank.executor->Submit(Plan(1)), IsOk());
  EXPECT_THAT(rank.executor->Wait(kNever), IsOk());
  const auto failed = rank.executor->Wait(kNever);
  EXPECT_THAT(failed, StatusIs(absl::StatusCode::kDataLoss));
  EXPECT_NE(failed.status().message().find("a weight is damaged"), std::string::npos);
  EXPECT_FALSE(rank.executor->Submit(Plan(2)).ok());
  EXPECT_FALSE(rank.executor->Wait(kNever).ok());
}

TEST_P(StepExecutorConformance, AbortInterruptsTheStepAndEveryLaterCall) {
  Notification started;
  Notification interrupted;
  Rank rank = Make(
      [&](const StepPlan&, proto::LateInputFunction) -> absl::StatusOr<StepResult> {
        started.Notify();
        interrupted.WaitForNotification();
        return absl::AbortedError("interrupted");
      },
      [&](const absl::Status&) { interrupted.Notify(); });
  ASSERT_THAT(rank.executor->Submit(Plan(0)), IsOk());
  started.WaitForNotification();
  rank.executor->Abort(absl::UnavailableError("rank 2 died"));
  rank.executor->Abort(absl::UnavailableError("again"));
  EXPECT_THAT(rank.executor->Wait(kNever), StatusIs(absl::StatusCode::kAborted));
  EXPECT_THAT(rank.executor->Submit(Plan(1)), StatusIs(absl::StatusCode::kAborted));
  // The rank is torn down without another call of the coordinator.
  EXPECT_TRUE(interrupted.WaitForNotificationWithTimeout(absl::Seconds(30)));
}

TEST_P(StepExecutorConformance, AStepGetsTheLateInputOfItsOwnPlan) {
  Rank rank = Make(AnswerMask);
  ASSERT_THAT(rank.executor->Submit(MaskedPlan(0)), IsOk());
  ASSERT_THAT(rank.executor->SubmitLate(Late(0, 7)), IsOk());
  for (uint64_t step = 1; step <= 20; ++step) {
    // The next plan is there before the masks that only this step's answer decides.
    ASSERT_THAT(rank.executor->Submit(MaskedPlan(step)), IsOk());
    const auto result = rank.executor->Wait(kNever);
    ASSERT_THAT(result, IsOk());
    EXPECT_EQ(result->sampled[0].token, static_cast<int32_t>(step + 6));
    ASSERT_THAT(rank.executor->SubmitLate(Late(step, static_cast<uint32_t>(step + 7))),
                IsOk());
  }
}

TEST_P(StepExecutorConformance, WithoutItsLateInputAStepWaits) {
  Rank rank = Make(AnswerMask);
  ASSERT_THAT(rank.executor->Submit(MaskedPlan(0)), IsOk());
  EXPECT_THAT(rank.executor->Wait(absl::Now() + absl::Milliseconds(5)),
              StatusIs(absl::StatusCode::kDeadlineExceeded));
  ASSERT_THAT(rank.executor->SubmitLate(Late(0, 5)), IsOk());
  EXPECT_THAT(rank.executor->Wait(kNever), IsOk());
}

TEST_P(StepExecutorConformance, ALateInputOfAnotherStepEndsTheEpoch) {
  Rank rank = Make(AnswerMask);
  ASSERT_THAT(rank.executor->Submit(MaskedPlan(0)), IsOk());
  ASSERT_THAT(rank.executor->SubmitLate(Late(1, 5)), IsOk());
  EXPECT_THAT(rank.executor->Wait(kNever), StatusIs(absl::StatusCode::kInvalidArgument));
}

TEST_P(StepExecutorConformance, ALateInputWithoutAPlanIsRefused) {
  Rank rank = Make(AnswerMask);
  EXPECT_THAT(rank.executor->SubmitLate(Late(0, 5)),
              StatusIs(absl::StatusCode::kFailedPrecondition));
}

TEST_P(StepExecutorConformance, AbortEndsTheWaitForALateInput) {
  Rank rank = Make(AnswerMask);
  ASSERT_THAT(rank.executor->Submit(MaskedPlan(0)), IsOk());
  rank.executor->Abort(absl::UnavailableError("rank 2 died"));
  EXPECT_THAT(rank.executor->Wait(kNever), StatusIs(absl::StatusCode::kAborted));
  EXPECT_THAT(rank.executor->SubmitLate(Late(0, 5)),
              StatusIs(absl::StatusCode::kAborted));
}

INSTANTIATE_TEST_SUITE_P(Versions, StepExecutorConformance, ::testing::Bool(),
                         [](const auto& test) {
                           return std::string(test.param ? "Grpc" : "InProcess");
                         });

// ---- What only a stream can do ----

class StepStream : public ::testing::Test {
 protected:
  StepStream() {
    auto thread = worker::RankThread::Create({.name = "rank 0"}, Echo,
                                             [this](const absl::Status&) { ++aborts_; });
    EXPECT_THAT(thread, IsOk());
    thread_ = std::move(thread).value();
    worker::StepServerOptions options;
    options.auth_token = kToken;
    auto server = worker::StepServer::Create(options, thread_.get(), Clock::Real());
    EXPECT_THAT(server, IsOk());
    server_ = std::move(server).value();
  }

  auto Connect(const std::string& token) {
    return coordinator::ConnectStepExecutor(
        {.address = server_->address(), .auth_token = token}, Clock::Real());
  }

  std::atomic<int> aborts_ = 0;
  std::unique_ptr<worker::RankThread> thread_;
  std::unique_ptr<worker::StepServer> server_;
};

TEST_F(StepStream, IsRefusedWithoutTheToken) {
  for (const std::string token : {"", "group secreT", "group secret "}) {
    EXPECT_THAT(Connect(token), StatusIs(absl::StatusCode::kUnauthenticated));
  }
  EXPECT_EQ(aborts_, 0);
  EXPECT_THAT(Connect(kToken), IsOk());
}

TEST_F(StepStream, OneCoordinatorAtATime) {
  auto first = Connect(kToken);
  ASSERT_THAT(first, IsOk());
  EXPECT_THAT(Connect(kToken), StatusIs(absl::StatusCode::kFailedPrecondition));
  ASSERT_THAT((*first)->Submit(Plan(0)), IsOk());
  EXPECT_THAT((*first)->Wait(kNever), IsOk());
}

TEST_F(StepStream, AWorkerThatGoesAwayIsUnavailable) {
  auto executor = Connect(kToken);
  ASSERT_THAT(executor, IsOk());
  server_.reset();
  EXPECT_THAT((*executor)->Submit(Plan(0)).ok()
                  ? (*executor)->Wait(kNever).status()
                  : absl::UnavailableError("refused at once"),
              StatusIs(absl::StatusCode::kUnavailable));
  EXPECT_FALSE((*executor)->Submit(Plan(1)).ok());
}

TEST_F(StepStream, NobodyListensIsUnavailable) {
  const std::string address = server_->address();
  server_.reset();
  EXPECT_THAT(
      coordinator::ConnectStepExecutor({.address = address,
                                        .auth_token = kToken,
                                        .connect_timeout = absl::Milliseconds(200)},
                                       Clock::Real()),
      StatusIs(absl::StatusCode::kUnavailable));
}

TEST_F(StepStream, StaysOnLoopback) {
  worker::StepServerOptions options;
  options.auth_token = kToken;
  options.address = "0.0.0.0:0";
  EXPECT_THAT(worker::StepServer::Create(options, thread_.get(), Clock::Real()),
              StatusIs(absl::StatusCode::kInvalidArgument));
  options.address = "127.0.0.1:0";
  options.auth_token = "";
  EXPECT_THAT(worker::StepServer::Create(options, thread_.get(), Clock::Real()),
              StatusIs(absl::StatusCode::kInvalidArgument));
  EXPECT_THAT(coordinator::ConnectStepExecutor(
                  {.address = "10.0.0.1:1", .auth_token = kToken}, Clock::Real()),
              StatusIs(absl::StatusCode::kInvalidArgument));
}

}  // namespace
}  // namespace tessera
