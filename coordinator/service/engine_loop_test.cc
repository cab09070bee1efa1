#include "coordinator/service/engine_loop.h"

#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "gtest/gtest.h"

#include "tests/testing/engine_fixture.h"
#include "tests/testing/status_matchers.h"
#include "tests/testing/stub_tokenizer.h"

namespace tessera::coordinator {
namespace {

using ::tessera::testing::IsOk;
using ::tessera::testing::StatusIs;

class EngineLoopTest : public ::testing::Test {
 protected:
  void Start(EngineOptions options = SmallEngineOptions(),
             absl::Duration step_time = absl::ZeroDuration()) {
    options.reform_pause = absl::Milliseconds(2);
    provider_ = std::make_unique<StubGroupProvider>(options, Clock::Real(), step_time);
    auto loop =
        EngineLoop::Create(options, provider_.get(), &tokenizer_, Clock::Real(), nullptr);
    ASSERT_THAT(loop, IsOk());
    loop_ = *std::move(loop);
  }

  bool WaitReady() { return loop_->WaitReady(absl::Now() + absl::Seconds(20)); }

  absl::Status Submit(const RequestSpec& spec,
                      const std::shared_ptr<RecordingSink>& sink) {
    return loop_->Submit(Validate(spec, absl::Now()), sink);
  }

  testing::StubTokenizer tokenizer_ = testing::StubTokenizer::Letters(kTestVocabSize);
  std::unique_ptr<StubGroupProvider> provider_;
  std::unique_ptr<EngineLoop> loop_;
};

TEST_F(EngineLoopTest, ManyThreadsGetTheSameTokensAsOneAtATime) {
  Start();
  ASSERT_TRUE(WaitReady());
  std::vector<std::thread> clients;
  for (int client = 0; client < 4; ++client) {
    clients.emplace_back([this, client] {
      for (int i = 0; i < 20; ++i) {
        const RequestSpec spec =
            MakeRequestSpec(std::to_string(client) + "-" + std::to_string(i),
                            3 + static_cast<size_t>(i), 20);
        const auto sink = std::make_shared<RecordingSink>();
        ASSERT_THAT(Submit(spec, sink), IsOk());
        ASSERT_TRUE(sink->WaitEnded());
        EXPECT_EQ(sink->tokens(0), StubOutput(Validate(spec, absl::Now()), 0, 20));
      }
    });
  }
  for (std::thread& client : clients) {
    client.join();
  }
  EXPECT_GE(loop_->retry_after(), absl::Seconds(1));
}

TEST_F(EngineLoopTest, ACordonFinishesWhatRunsAndRefusesWhatIsNew) {
  Start(SmallEngineOptions(), absl::Milliseconds(5));
  ASSERT_TRUE(WaitReady());
  const auto running = std::make_shared<RecordingSink>();
  ASSERT_THAT(Submit(MakeRequestSpec("running", 3, 20), running), IsOk());
  loop_->SetCordoned(true);
  EXPECT_FALSE(loop_->status().ready);
  EXPECT_TRUE(loop_->status().draining);
  EXPECT_EQ(loop_->status().phase, "cordoned");
  EXPECT_THAT(Submit(MakeRequestSpec("new", 3, 20), std::make_shared<RecordingSink>()),
              StatusIs(absl::StatusCode::kUnavailable));
  ASSERT_TRUE(running->WaitEnded());
  EXPECT_EQ(running->tokens(0).size(), 20u);
  loop_->SetCordoned(false);
  EXPECT_TRUE(WaitReady());
  const auto after = std::make_shared<RecordingSink>();
  ASSERT_THAT(Submit(MakeRequestSpec("after", 3, 5), after), IsOk());
  EXPECT_TRUE(after->WaitEnded());
}

TEST_F(EngineLoopTest, ALoweredQuotaRefusesWhatWouldExceedIt) {
  Start(SmallEngineOptions());
  ASSERT_TRUE(WaitReady());
  ASSERT_THAT(loop_->SetTenants({}, {.name = "", .max_running_tokens = 10}), IsOk());
  const auto refused = std::make_shared<RecordingSink>();
  ASSERT_THAT(Submit(MakeRequestSpec("long", 3, 20), refused), IsOk());
  ASSERT_TRUE(refused->WaitEnded());
  EXPECT_EQ(refused->status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(loop_->SetTenants({}, {.name = "", .weight = 0}),
              StatusIs(absl::StatusCode::kInvalidArgument));
  ASSERT_THAT(loop_->SetTenants({}, {}), IsOk());
  const auto served = std::make_shared<RecordingSink>();
  ASSERT_THAT(Submit(MakeRequestSpec("again", 3, 20), served), IsOk());
  ASSERT_TRUE(served->WaitEnded());
  EXPECT_THAT(served->status(), IsOk());
}

TEST_F(EngineLoopTest, TheReportListsLiveRequestsAndForgetsThemWhenTheyEnd) {
  Start(SmallEngineOptions(), absl::Milliseconds(2));
  ASSERT_TRUE(WaitReady());
  EXPECT_TRUE(loop_->Report().requests.empty());  // From now on somebody looks.
  const auto sink = std::make_shared<RecordingSink>();
  ASSERT_THAT(Submit(MakeRequestSpec("one", 3, 20), sink), IsOk());
  RequestReport seen;
  while (seen.id.empty() && !sink->ended()) {
    for (const RequestReport& request : loop_->Report().requests) {
      seen = request;
    }
  }
  EXPECT_EQ(seen.id, "one");
  EXPECT_EQ(seen.prompt_tokens, 3);
  EXPECT_EQ(seen.max_tokens, 20);
  ASSERT_TRUE(sink->WaitEnded());
  while (!loop_->Report().requests.empty()) {
    std::this_thread::yield();
  }
  EXPECT_EQ(loop_->Report().num_requests, 0);
}

TEST_F(EngineLoopTest, RefusesWhileNoGroupIsReadyAndRecovers) {
  EngineOptions options = SmallEngineOptions();
  Start(options);
  ASSERT_TRUE(WaitReady());
  provider_->FailNextForms(1000000);
  provider_->stub(0)->Fail(absl::UnavailableError("gone"));
  const auto lost = std::make_shared<RecordingSink>();
  ASSERT_THAT(Submit(MakeRequestSpec("lost", 3, 20), lost), IsOk());
  ASSERT_TRUE(lost->WaitEnded());
  EXPECT_EQ(lost->status().code(), absl::StatusCode::kUnavailable);
  const auto refused = std::make_shared<RecordingSink>();
  // The failed epoch is published right after the stream's error.
  for (int i = 0; i < 2000 && loop_->status().ready; ++i) {
    Clock::Real()->Sleep(absl::Milliseconds(1));
  }
  EXPECT_THAT(Submit(MakeRequestSpec("refused", 3, 20), refused),
              StatusIs(absl::StatusCode::kUnavailable));
  provider_->FailNextForms(0);
  ASSERT_TRUE(WaitReady());
  const auto served = std::make_shared<RecordingSink>();
  ASSERT_THAT(Submit(MakeRequestSpec("served", 3, 20), served), IsOk());
  ASSERT_TRUE(served->WaitEnded());
  EXPECT_THAT(served->status(), IsOk());
}

TEST_F(EngineLoopTest, AFullQueueAndADuplicateIdAreRefused) {
  Start(SmallEngineOptions(), absl::Milliseconds(20));
  ASSERT_TRUE(WaitReady());
  std::vector<std::shared_ptr<RecordingSink>> sinks;
  absl::Status status;
  int num_accepted = 0;
  for (int i = 0; i < 40 && status.ok(); ++i) {
    sinks.push_back(std::make_shared<RecordingSink>());
    status = Submit(MakeRequestSpec(std::to_string(i), 3, 100), sinks.back());
    num_accepted += status.ok() ? 1 : 0;
  }
  EXPECT_THAT(status, StatusIs(absl::StatusCode::kResourceExhausted));
  EXPECT_GE(num_accepted, 16);
  for (int i = 1; i < num_accepted; ++i) {
    loop_->Cancel(std::to_string(i));
  }
  for (int i = 1; i < num_accepted; ++i) {
    ASSERT_TRUE(sinks[static_cast<size_t>(i)]->WaitEnded());
    EXPECT_THAT(sinks[static_cast<size_t>(i)]->status(),
                StatusIs(absl::StatusCode::kCancelled));
  }
  // The cancelled ones leave the queue with the turn that ended them.
  for (int i = 0; i < 2000 && loop_->status().num_waiting > 0; ++i) {
    Clock::Real()->Sleep(absl::Milliseconds(1));
  }
  EXPECT_THAT(Submit(MakeRequestSpec("0", 3, 100), std::make_shared<RecordingSink>()),
              StatusIs(absl::StatusCode::kInvalidArgument));
}

TEST_F(EngineLoopTest, DrainRefusesNewRequestsAndFinishesTheOthers) {
  Start(SmallEngineOptions(), absl::Milliseconds(1));
  ASSERT_TRUE(WaitReady());
  const auto sink = std::make_shared<RecordingSink>();
  ASSERT_THAT(Submit(MakeRequestSpec("a", 3, 50), sink), IsOk());
  loop_->StartDrain(absl::Seconds(20));
  EXPECT_FALSE(loop_->status().ready);
  EXPECT_EQ(loop_->status().phase, "draining");
  EXPECT_THAT(Submit(MakeRequestSpec("b", 3, 5), std::make_shared<RecordingSink>()),
              StatusIs(absl::StatusCode::kUnavailable));
  loop_->WaitDrained();
  EXPECT_TRUE(sink->ended());
  EXPECT_EQ(sink->usage().completion_tokens, 50);
}

TEST_F(EngineLoopTest, ShutdownEndsEveryStreamWithAnError) {
  Start(SmallEngineOptions(), absl::Milliseconds(5));
  ASSERT_TRUE(WaitReady());
  const auto sink = std::make_shared<RecordingSink>();
  ASSERT_THAT(Submit(MakeRequestSpec("a", 3, 100), sink), IsOk());
  loop_->Shutdown();
  ASSERT_TRUE(sink->ended());
  EXPECT_THAT(sink->status(), StatusIs(absl::StatusCode::kUnavailable));
  EXPECT_FALSE(provider_->stub(0)->abort_reason().ok());
  EXPECT_EQ(loop_->status().phase, "stopped");
}

}  // namespace
}  // namespace tessera::coordinator
