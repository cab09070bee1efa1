#include "coordinator/service/engine_core.h"

#include <memory>
#include <span>
#include <string>
#include <vector>

#include "fmt/format.h"
#include "gtest/gtest.h"

#include "tests/testing/engine_fixture.h"
#include "tests/testing/status_matchers.h"
#include "tests/testing/stub_tokenizer.h"

namespace tessera::coordinator {
namespace {

using ::tessera::testing::IsOk;

// Counts what the engine reports.
class CountingObserver final : public EngineObserver {
 public:
  void OnStep(const StepObservation& step) override {
    ++(step.probe ? num_probes : num_steps);
    num_ranks = step.rank_counters.size();
    num_drafts += step.drafts.num_drafts;
    for (const int64_t accepted : step.drafts.accepted) {
      num_accepted_drafts += accepted;
    }
  }
  void OnToken(std::optional<absl::Duration> gap) override {
    num_gaps += gap.has_value() ? 1 : 0;
  }
  void OnExpertCounts(std::span<const uint32_t> counts) override {
    ++num_expert_reports;
    EXPECT_EQ(counts.size(), 6u);
    num_counted_tokens += counts[0];
  }
  void OnRequestFinished(const RequestObservation& request) override { last = request; }
  void OnGroupReady(uint64_t epoch) override { ready_epoch = epoch; }
  void OnGroupFailed(uint64_t epoch, const absl::Status&) override {
    failed_epoch = epoch;
  }

  int num_steps = 0;
  int num_probes = 0;
  int num_gaps = 0;
  int num_expert_reports = 0;
  int64_t num_counted_tokens = 0;
  int64_t num_drafts = 0;
  int64_t num_accepted_drafts = 0;
  size_t num_ranks = 0;
  uint64_t ready_epoch = 0;
  uint64_t failed_epoch = 0;
  RequestObservation last;
};

class EngineCoreTest : public ::testing::Test {
 protected:
  void Start(const EngineOptions& options = SmallEngineOptions()) {
    provider_ =
        std::make_unique<StubGroupProvider>(options, &clock_, absl::Milliseconds(10));
    auto core =
        EngineCore::Create(options, provider_.get(), &tokenizer_, &clock_, &observer_);
    ASSERT_THAT(core, IsOk());
    core_ = *std::move(core);
  }

  // What EngineLoop does: forms groups when asked to, and turns until idle.
  void RunUntilIdle() {
    for (int i = 0; i < 2000; ++i) {
      FormIfDue();
      if (!core_->Advance()) {
        return;
      }
    }
    FAIL() << "the engine is still busy after 2000 turns";
  }

  void FormIfDue() {
    if (const auto epoch = core_->TakeFormRequest()) {
      auto formed = provider_->Form(*epoch);
      core_->FormFinished(*epoch, formed.status(),
                          formed.ok() ? *std::move(formed) : RankExecutors());
    }
  }

  std::shared_ptr<RecordingSink> Submit(const RequestSpec& spec) {
    auto sink = std::make_shared<RecordingSink>();
    core_->Submit(Validate(spec, clock_.Now()), sink);
    return sink;
  }

  SimulatedClock clock_;
  testing::StubTokenizer tokenizer_ = testing::StubTokenizer::Letters(kTestVocabSize);
  CountingObserver observer_;
  std::unique_ptr<StubGroupProvider> provider_;
  std::unique_ptr<EngineCore> core_;
};

TEST_F(EngineCoreTest, AGroupIsUpOnlyAfterItsFirstRealStep) {
  Start();
  FormIfDue();
  EXPECT_FALSE(core_->snapshot().group_up);
  EXPECT_TRUE(core_->Advance());
  EXPECT_TRUE(core_->snapshot().group_up);
  EXPECT_EQ(observer_.num_probes, 1);
  EXPECT_EQ(observer_.ready_epoch, 1u);
}

TEST_F(EngineCoreTest, EveryChoiceGetsTheModelsTokensAndText) {
  EngineOptions options = SmallEngineOptions();
  options.scheduler.num_dp_ranks = 2;
  options.tp = 2;
  Start(options);
  RequestSpec spec = MakeRequestSpec("r", 40, 12);
  spec.n = 3;
  const auto sink = Submit(spec);
  RunUntilIdle();
  ASSERT_TRUE(sink->ended());
  const ValidatedRequest request = Validate(spec, clock_.Now());
  for (int32_t choice = 0; choice < 3; ++choice) {
    const std::vector<int32_t> expected = StubOutput(request, choice, 12);
    EXPECT_EQ(sink->tokens(choice), expected);
    EXPECT_EQ(sink->text(choice), *tokenizer_.Decode(expected, true));
    EXPECT_EQ(sink->finished(choice).reason, FinishReason::kLength);
  }
  EXPECT_EQ(sink->usage().prompt_tokens, 40);
  EXPECT_EQ(sink->usage().completion_tokens, 36);
  EXPECT_EQ(observer_.num_ranks, 4u);
  EXPECT_EQ(observer_.num_gaps, 33);
  EXPECT_EQ(observer_.last.outcome, RequestOutcome::kLength);
  EXPECT_TRUE(observer_.last.first_token_time.has_value());
  EXPECT_TRUE(observer_.last.queue_time.has_value());
  EXPECT_EQ(core_->snapshot().stats.blocks_used, 0);
}

TEST_F(EngineCoreTest, UsageSaysHowMuchOfThePromptEachTierGave) {
  EngineOptions options = SmallEngineOptions();
  options.scheduler.num_blocks = 16;
  options.scheduler.num_host_blocks = 32;
  Start(options);
  const auto usage_of = [&](const std::string& id, int32_t first_token, size_t length) {
    RequestSpec spec = MakeRequestSpec(id, length, 2);
    spec.prompt_ids[0] = first_token;
    const auto sink = Submit(spec);
    RunUntilIdle();
    EXPECT_TRUE(sink->ended());
    return sink->usage();
  };
  EXPECT_EQ(usage_of("new", 1, 41).cached_prompt_tokens, 0);
  const RequestUsage on_device = usage_of("again", 1, 41);
  EXPECT_EQ(on_device.cached_prompt_tokens, 40);
  EXPECT_EQ(on_device.host_cached_prompt_tokens, 0);
  EXPECT_EQ(usage_of("long", 2, 120).cached_prompt_tokens, 0);  // takes the blocks
  const RequestUsage restored = usage_of("later", 1, 41);
  EXPECT_EQ(restored.cached_prompt_tokens, 40);
  EXPECT_GT(restored.host_cached_prompt_tokens, 0);
  EXPECT_LE(restored.host_cached_prompt_tokens, 40);
}

TEST_F(EngineCoreTest, ExpertCountsComeInTurnsAndMissNothingButProbes) {
  EngineOptions options = SmallEngineOptions();
  options.scheduler.num_dp_ranks = 2;
  options.tp = 2;
  options.num_expert_counts = 6;
  options.expert_report_period = absl::Milliseconds(80);
  Start(options);
  RequestSpec spec = MakeRequestSpec("r", 40, 50);
  spec.n = 3;
  const auto sink = Submit(spec);
  RunUntilIdle();
  ASSERT_TRUE(sink->ended());
  const int64_t steps = observer_.num_steps;
  // Steps of 10 ms, one report in 40.
  EXPECT_NEAR(observer_.num_expert_reports, static_cast<double>(steps) / 4, 2);
  clock_.Advance(options.probe_interval);
  RunUntilIdle();
  // The prompt once per choice, or once per rank and found by the others there; a step
  // planned ahead computes a token too many.
  EXPECT_GE(observer_.num_counted_tokens, 40 + 3 * 49);
  EXPECT_LE(observer_.num_counted_tokens, 3 * (40 + 50));
  const int64_t counted = observer_.num_counted_tokens;
  clock_.Advance(options.probe_interval);
  RunUntilIdle();
  EXPECT_GE(observer_.num_probes, 3);
  EXPECT_EQ(observer_.num_counted_tokens, counted);
}

TEST_F(EngineCoreTest, AReportOfAnotherSizeEndsTheEpoch) {
  EngineOptions options = SmallEngineOptions();
  options.num_expert_counts = 6;
  Start(options);
  provider_->ReportWrongExpertCounts(1);
  const auto sink = Submit(MakeRequestSpec("r", 5, 5));
  FormIfDue();
  while (!sink->ended() && core_->Advance()) {
  }
  EXPECT_TRUE(absl::IsUnavailable(sink->status())) << sink->status();
  EXPECT_EQ(observer_.failed_epoch, 1u);
  EXPECT_EQ(observer_.num_expert_reports, 0);
}

TEST_F(EngineCoreTest, AStopStringEndsAChoiceAndDropsTheTokenPlannedAhead) {
  Start();
  RequestSpec spec = MakeRequestSpec("r", 5, 50);
  const std::vector<int32_t> output = StubOutput(Validate(spec, clock_.Now()), 0, 50);
  const std::string text = *tokenizer_.Decode(output, true);
  spec.stop = {text.substr(10, 3)};
  const size_t begin = text.find(spec.stop[0]);
  const auto sink = Submit(spec);
  RunUntilIdle();
  EXPECT_EQ(sink->text(0), text.substr(0, begin));
  EXPECT_EQ(sink->finished(0).stop_string, spec.stop[0]);
  EXPECT_EQ(sink->usage().completion_tokens, static_cast<int64_t>(begin + 3));
  EXPECT_EQ(core_->snapshot().stats.blocks_used, 0);
}

TEST_F(EngineCoreTest, SpeculationGivesTheSameTokensInFewerSteps) {
  EngineOptions options = SmallEngineOptions();
  options.scheduler.num_speculative_tokens = 4;
  options.tp = 2;
  Start(options);
  RequestSpec spec = MakeRequestSpec("r", 20, 60);
  spec.n = 2;
  const auto sink = Submit(spec);
  RunUntilIdle();
  const ValidatedRequest request = Validate(spec, clock_.Now());
  for (int32_t choice = 0; choice < 2; ++choice) {
    EXPECT_EQ(sink->tokens(choice), StubOutput(request, choice, 60));
  }
  EXPECT_LT(observer_.num_steps, 60);
  EXPECT_GT(observer_.num_drafts, 0);
  // Of the first rank of the TP group alone. What was accepted came without a gap.
  EXPECT_GT(observer_.num_accepted_drafts, 0);
  EXPECT_LT(observer_.num_accepted_drafts, 120);
  EXPECT_LT(observer_.num_gaps, 118);
  EXPECT_GE(observer_.num_gaps + observer_.num_accepted_drafts, 118);
}

TEST_F(EngineCoreTest, AStopAmongAcceptedDraftsDropsTheTokensAfterIt) {
  EngineOptions options = SmallEngineOptions();
  options.scheduler.num_speculative_tokens = 6;
  Start(options);
  // Stops at every place: some stand among the tokens of one step.
  for (size_t at = 1; at < 40; ++at) {
    const std::string id = fmt::format("r{}", at);
    RequestSpec spec = MakeRequestSpec(id, 5, 50);
    const std::string text =
        *tokenizer_.Decode(StubOutput(Validate(spec, clock_.Now()), 0, 50), true);
    spec.stop = {text.substr(at, 3)};
    const size_t begin = text.find(spec.stop[0]);
    const auto sink = Submit(spec);
    RunUntilIdle();
    EXPECT_EQ(sink->text(0), text.substr(0, begin));
    EXPECT_EQ(sink->usage().completion_tokens, static_cast<int64_t>(begin + 3));
  }
  EXPECT_EQ(core_->snapshot().stats.blocks_used, 0);
}

TEST_F(EngineCoreTest, CancelledRequestsFreeTheirBlocksWithinTwoSteps) {
  Start();
  const auto sink = Submit(MakeRequestSpec("r", 20, 100));
  FormIfDue();
  for (int i = 0; i < 5; ++i) {
    core_->Advance();
  }
  EXPECT_GT(core_->snapshot().stats.blocks_used, 0);
  core_->Cancel("r");
  EXPECT_EQ(sink->status().code(), absl::StatusCode::kCancelled);
  core_->Advance();
  core_->Advance();
  EXPECT_EQ(core_->snapshot().stats.blocks_used, 0);
  EXPECT_EQ(core_->TakeEnded(), std::vector<std::string>{"r"});
}

TEST_F(EngineCoreTest, ADeadlineEndsRunningAndWaitingRequestsAlsoWithoutAGroup) {
  Start();
  provider_->FailNextForms(1000);
  RequestSpec spec = MakeRequestSpec("r", 20, 100);
  spec.timeout = absl::Seconds(3);
  const auto sink = Submit(spec);
  RunUntilIdle();
  EXPECT_FALSE(sink->ended());
  clock_.Advance(absl::Seconds(3));
  core_->Advance();
  EXPECT_EQ(sink->status().code(), absl::StatusCode::kDeadlineExceeded);
}

TEST_F(EngineCoreTest, ARankThatFailsEndsStartedStreamsAndKeepsTheQueue) {
  EngineOptions options = SmallEngineOptions();
  options.scheduler.max_num_seqs = 1;
  options.tp = 2;
  Start(options);
  const auto running = Submit(MakeRequestSpec("a", 5, 30));
  const RequestSpec waiting_spec = MakeRequestSpec("b", 6, 30);
  const auto waiting = Submit(waiting_spec);
  FormIfDue();
  for (int i = 0; i < 4; ++i) {
    core_->Advance();
  }
  provider_->stub(1)->Fail(absl::UnavailableError("connection reset"));
  EXPECT_TRUE(core_->Advance());
  // Whoever hears of the end can see that the group is down.
  EXPECT_FALSE(running->ended());
  EXPECT_FALSE(core_->snapshot().group_up);
  core_->Advance();
  ASSERT_TRUE(running->ended());
  EXPECT_EQ(running->status().code(), absl::StatusCode::kUnavailable);
  EXPECT_NE(running->status().ToString().find("rank 1"), std::string::npos);
  EXPECT_FALSE(waiting->ended());
  EXPECT_FALSE(core_->snapshot().group_up);
  EXPECT_EQ(provider_->failed(), std::vector<uint64_t>{1});
  EXPECT_FALSE(provider_->stub(0)->abort_reason().ok());
  // The next epoch serves the queue.
  clock_.Advance(absl::Seconds(1));
  RunUntilIdle();
  EXPECT_EQ(observer_.ready_epoch, 2u);
  ASSERT_TRUE(waiting->ended());
  EXPECT_EQ(waiting->tokens(0), StubOutput(Validate(waiting_spec, clock_.Now()), 0, 30));
}

TEST_F(EngineCoreTest, AStepBeyondItsDeadlineFailsTheGroup) {
  Start();
  const auto sink = Submit(MakeRequestSpec("a", 5, 30));
  FormIfDue();
  core_->Advance();
  provider_->stub(0)->SetHung(true);
  const absl::Time before = clock_.Now();
  for (int i = 0; i < 4; ++i) {
    core_->Advance();
  }
  EXPECT_EQ(sink->status().code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(observer_.failed_epoch, 1u);
  EXPECT_LE(clock_.Now() - before, absl::Seconds(3));
}

TEST_F(EngineCoreTest, AnAnswerToAnotherStepFailsTheGroup) {
  Start();
  RunUntilIdle();
  provider_->stub(0)->SetWrongStep(true);
  const auto sink = Submit(MakeRequestSpec("a", 5, 30));
  for (int i = 0; i < 4; ++i) {
    core_->Advance();
  }
  EXPECT_EQ(sink->status().code(), absl::StatusCode::kUnavailable);
  EXPECT_TRUE(sink->tokens(0).empty());
}

TEST_F(EngineCoreTest, AnIdleGroupIsProbedAndAHungOneIsFoundOut) {
  Start();
  RunUntilIdle();
  EXPECT_EQ(observer_.num_probes, 1);
  clock_.Advance(absl::Seconds(5));
  EXPECT_LE(core_->NextWakeup(), clock_.Now());
  EXPECT_TRUE(core_->Advance());
  EXPECT_EQ(observer_.num_probes, 2);
  EXPECT_FALSE(core_->Advance());
  provider_->stub(0)->SetHung(true);
  clock_.Advance(absl::Seconds(5));
  core_->Advance();
  EXPECT_FALSE(core_->snapshot().group_up);
}

TEST_F(EngineCoreTest, FormingIsTriedAgainWithGrowingPauses) {
  Start();
  provider_->FailNextForms(5);
  std::vector<absl::Duration> pauses;
  for (int i = 0; i < 5; ++i) {
    FormIfDue();
    pauses.push_back(core_->NextWakeup() - clock_.Now());
    EXPECT_FALSE(core_->TakeFormRequest().has_value());
    clock_.Advance(pauses.back());
  }
  EXPECT_GE(pauses[0], absl::Milliseconds(50));
  EXPECT_GT(pauses[4], 4 * pauses[0]);
  EXPECT_LE(pauses[4], absl::Seconds(5));
  RunUntilIdle();
  EXPECT_TRUE(core_->snapshot().group_up);
}

TEST_F(EngineCoreTest, AFirstGroupThatTheModelForbidsIsNotTriedAgain) {
  Start();
  provider_->FailNextForms(1, absl::InvalidArgumentError("tp 3, expected 1, 2, 4 or 8"));
  FormIfDue();
  EXPECT_EQ(core_->snapshot().fatal.code(), absl::StatusCode::kInvalidArgument);
  clock_.Advance(absl::Hours(1));
  EXPECT_FALSE(core_->TakeFormRequest().has_value());
}

TEST_F(EngineCoreTest, AGroupThatWasUpIsTriedAgainWhateverItsReason) {
  Start();
  RunUntilIdle();
  provider_->FailNextForms(1, absl::DataLossError("a page of the checkpoint"));
  provider_->stub(0)->Fail(absl::UnavailableError("connection reset"));
  clock_.Advance(absl::Seconds(5));
  core_->Advance();
  clock_.Advance(absl::Seconds(5));
  FormIfDue();
  EXPECT_TRUE(core_->snapshot().fatal.ok());
  clock_.Advance(absl::Seconds(5));
  RunUntilIdle();
  EXPECT_TRUE(core_->snapshot().group_up);
}

TEST_F(EngineCoreTest, DrainingLetsRequestsFinishUntilItsDeadline) {
  Start();
  const auto quick = Submit(MakeRequestSpec("a", 5, 3));
  const auto slow = Submit(MakeRequestSpec("b", 5, 100));
  core_->StartDrain(clock_.Now() + absl::Milliseconds(200));
  RunUntilIdle();
  EXPECT_TRUE(quick->status().ok());
  EXPECT_EQ(quick->usage().completion_tokens, 3);
  EXPECT_EQ(slow->status().code(), absl::StatusCode::kUnavailable);
}

}  // namespace
}  // namespace tessera::coordinator
