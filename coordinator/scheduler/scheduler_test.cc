#include "coordinator/scheduler/scheduler.h"

#include <algorithm>
#include <deque>
#include <map>
#include <memory>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

#include "tests/testing/status_matchers.h"
#include "tests/testing/stub_worker.h"

namespace tessera::coordinator {
namespace {

using ::tessera::testing::IsOk;
using ::tessera::testing::StatusIs;
using ::tessera::testing::StubToken;
using ::tessera::testing::StubWorker;

constexpr int32_t kVocabSize = 1000;

SchedulerOptions SmallOptions() {
  SchedulerOptions options;
  options.max_num_seqs = 4;
  options.max_num_batched_tokens = 16;
  options.max_model_len = 64;
  options.block_size = 4;
  options.num_blocks = 32;
  options.max_waiting = 8;
  return options;
}

SequenceSpec MakeSpec(SequenceId id, std::vector<int32_t> prompt, int64_t max_tokens) {
  SequenceSpec spec;
  spec.id = id;
  spec.tenant = "t";
  spec.prompt = std::move(prompt);
  spec.max_tokens = max_tokens;
  spec.sampling.seed = id;
  spec.deadline = absl::InfiniteFuture();
  return spec;
}

std::vector<int32_t> Numbers(int32_t from, size_t count) {
  std::vector<int32_t> numbers(count);
  for (size_t i = 0; i < count; ++i) {
    numbers[i] = from + static_cast<int32_t>(i);
  }
  return numbers;
}

// A scheduler with stub workers behind it.
class Harness {
 public:
  explicit Harness(const SchedulerOptions& options)
      : options_(options), scheduler_(*Scheduler::Create(options)) {
    for (int64_t i = 0; i < options.num_dp_ranks; ++i) {
      workers_.emplace_back(testing::StubWorkerOptions{
          .num_blocks = options.num_blocks,
          .block_size = options.block_size,
          .max_num_seqs = options.max_num_seqs,
          .max_num_batched_tokens = options.max_num_batched_tokens,
          .vocab_size = kVocabSize,
          .num_tail_blocks = options.num_tail_blocks,
          .tail_tokens = options.tail_tokens});
    }
  }

  // Plans and executes; the results wait for Accept.
  PlannedStep Plan() {
    PlannedStep step = scheduler_->Plan(absl::UnixEpoch());
    Execute(step);
    return step;
  }

  void Execute(const PlannedStep& step) {
    std::vector<proto::StepResult> results;
    for (size_t i = 0; i < workers_.size(); ++i) {
      auto result = workers_[i].Execute(step.plans[i]);
      EXPECT_THAT(result, IsOk());
      results.push_back(result.ok() ? *result : proto::StepResult());
    }
    results_.push_back(std::move(results));
  }

  // Accepts the oldest; ends sequences whose length is reached.
  std::vector<AcceptedToken> Accept() {
    auto accepted = scheduler_->Accept(results_.front());
    EXPECT_THAT(accepted, IsOk());
    results_.pop_front();
    EXPECT_THAT(scheduler_->CheckInvariants(), IsOk());
    if (!accepted.ok()) {
      return {};
    }
    for (const AcceptedToken& token : *accepted) {
      generated_[token.sequence].push_back(token.sampled.token);
      EXPECT_EQ(token.index + 1, std::ssize(generated_[token.sequence]));
      if (token.length_reached) {
        scheduler_->Finish(token.sequence);
      }
    }
    return *accepted;
  }

  // Runs until nothing is left, one step ahead.
  void Drain() {
    for (int i = 0; i < 1000 && (scheduler_->has_work() || !results_.empty()); ++i) {
      if (scheduler_->has_work() && results_.size() < 2) {
        Plan();
      }
      if (results_.size() == 2 || !scheduler_->has_work()) {
        Accept();
      }
    }
    EXPECT_TRUE(results_.empty());
    EXPECT_EQ(scheduler_->stats().num_waiting + scheduler_->stats().num_running, 0);
  }

  void StartEpoch(uint64_t epoch) {
    results_.clear();
    scheduler_->StartEpoch(epoch);
  }

  Scheduler& scheduler() { return *scheduler_; }
  const std::vector<int32_t>& generated(SequenceId id) { return generated_[id]; }

 private:
  SchedulerOptions options_;
  std::unique_ptr<Scheduler> scheduler_;
  std::vector<StubWorker> workers_;
  std::deque<std::vector<proto::StepResult>> results_;
  std::map<SequenceId, std::vector<int32_t>> generated_;
};

// What the stub model generates after the spec's prompt.
std::vector<int32_t> Oracle(const SequenceSpec& spec, int64_t count) {
  std::vector<int32_t> history = spec.prompt;
  for (int64_t i = 0; i < count; ++i) {
    history.push_back(StubToken(history, static_cast<uint32_t>(spec.prompt.size()),
                                spec.sampling, kVocabSize));
  }
  return {history.begin() + std::ssize(spec.prompt), history.end()};
}

TEST(Scheduler, RefusesOptionsThatCannotWork) {
  SchedulerOptions options = SmallOptions();
  options.num_blocks = 15;
  EXPECT_THAT(Scheduler::Create(options), StatusIs(absl::StatusCode::kInvalidArgument));
  options = SmallOptions();
  options.max_num_batched_tokens = 0;
  EXPECT_THAT(Scheduler::Create(options), StatusIs(absl::StatusCode::kInvalidArgument));
}

TEST(Scheduler, RefusesSequencesThatCanNeverFitAndAFullQueue) {
  Harness harness(SmallOptions());
  Scheduler& scheduler = harness.scheduler();
  EXPECT_THAT(scheduler.Enqueue(MakeSpec(1, {}, 1)),
              StatusIs(absl::StatusCode::kInvalidArgument));
  EXPECT_THAT(scheduler.Enqueue(MakeSpec(1, Numbers(0, 64), 1)),
              StatusIs(absl::StatusCode::kInvalidArgument));
  EXPECT_THAT(scheduler.Enqueue(MakeSpec(1, {1}, 0)),
              StatusIs(absl::StatusCode::kInvalidArgument));
  for (SequenceId id = 1; id <= 8; ++id) {
    ASSERT_THAT(scheduler.Enqueue(MakeSpec(id, {1}, 1)), IsOk());
  }
  EXPECT_THAT(scheduler.Enqueue(MakeSpec(9, {1}, 1)),
              StatusIs(absl::StatusCode::kResourceExhausted));
}

TEST(Scheduler, GeneratesTheModelsTokensAndReportsTheLastByLength) {
  Harness harness(SmallOptions());
  const SequenceSpec spec = MakeSpec(1, Numbers(5, 21), 9);
  ASSERT_THAT(harness.scheduler().Enqueue(spec), IsOk());
  harness.Drain();
  EXPECT_EQ(harness.generated(1), Oracle(spec, 9));
  EXPECT_EQ(harness.scheduler().stats().blocks_used, 0);
}

TEST(Scheduler, MaxModelLenEndsASequence) {
  Harness harness(SmallOptions());
  const SequenceSpec spec = MakeSpec(1, Numbers(5, 60), 100);
  ASSERT_THAT(harness.scheduler().Enqueue(spec), IsOk());
  harness.Drain();
  EXPECT_EQ(harness.generated(1), Oracle(spec, 4));
}

TEST(Scheduler, DecodesComeBeforeAndBesideALongPrefill) {
  Harness harness(SmallOptions());
  Scheduler& scheduler = harness.scheduler();
  ASSERT_THAT(scheduler.Enqueue(MakeSpec(1, {1, 2}, 30)), IsOk());
  harness.Plan();
  harness.Accept();
  ASSERT_THAT(scheduler.Enqueue(MakeSpec(2, Numbers(0, 40), 4)), IsOk());
  for (int step = 0; step < 3; ++step) {
    const PlannedStep planned = harness.Plan();
    EXPECT_EQ(planned.num_tokens, step < 2 ? 16 : 11);
    EXPECT_EQ(planned.num_prefill_tokens, planned.num_tokens - 1);
    EXPECT_EQ(planned.plans[0].work.front().slot, 0u);
    EXPECT_EQ(harness.Accept().front().sequence, 1u);
  }
}

TEST(Scheduler, RunAheadContinuesFromTheSampleOfTheLastStep) {
  Harness harness(SmallOptions());
  const SequenceSpec spec = MakeSpec(1, {1, 2, 3}, 10);
  ASSERT_THAT(harness.scheduler().Enqueue(spec), IsOk());
  harness.Plan();
  const PlannedStep ahead = harness.Plan();
  ASSERT_EQ(ahead.plans[0].work.size(), 1u);
  EXPECT_TRUE(ahead.plans[0].work[0].from_sample);
  EXPECT_TRUE(ahead.plans[0].work[0].tokens.empty());
  harness.Accept();
  harness.Accept();
  // Nothing in flight: the token is known and named.
  const PlannedStep known = harness.Plan();
  EXPECT_FALSE(known.plans[0].work[0].from_sample);
  EXPECT_EQ(known.plans[0].work[0].tokens, std::vector{Oracle(spec, 2)[1]});
}

TEST(Scheduler, AFinishedSequencesBlocksOutliveThePlansThatNameThem) {
  Harness harness(SmallOptions());
  Scheduler& scheduler = harness.scheduler();
  ASSERT_THAT(scheduler.Enqueue(MakeSpec(1, Numbers(0, 8), 10)), IsOk());
  harness.Plan();
  harness.Plan();
  harness.Accept();
  scheduler.Finish(1);
  EXPECT_EQ(scheduler.stats().blocks_used, 3);
  EXPECT_TRUE(harness.Accept().empty());
  EXPECT_EQ(scheduler.stats().blocks_used, 0);
  ASSERT_THAT(scheduler.Enqueue(MakeSpec(2, {1}, 1)), IsOk());
  EXPECT_EQ(harness.Plan().plans[0].releases, std::vector<uint32_t>{0});
}

TEST(Scheduler, APrefixHitSkipsFullBlocksAndLeavesATokenToCompute) {
  Harness harness(SmallOptions());
  Scheduler& scheduler = harness.scheduler();
  const std::vector<int32_t> prompt = Numbers(0, 16);
  ASSERT_THAT(scheduler.Enqueue(MakeSpec(1, prompt, 1)), IsOk());
  harness.Drain();
  const SequenceSpec again = MakeSpec(2, prompt, 3);
  ASSERT_THAT(scheduler.Enqueue(again), IsOk());
  const PlannedStep step = harness.Plan();
  EXPECT_EQ(scheduler.cached_tokens(2), 12);
  EXPECT_EQ(step.plans[0].admissions[0].history, Numbers(0, 12));
  EXPECT_EQ(step.plans[0].work[0].tokens, Numbers(12, 4));
  harness.Drain();
  EXPECT_EQ(harness.generated(2), Oracle(again, 3));
  EXPECT_EQ(scheduler.stats().prefix_hit_tokens, 12u);
}

TEST(Scheduler, BlocksAreNotSharedBeforeTheStepThatFillsThemWasAccepted) {
  Harness harness(SmallOptions());
  Scheduler& scheduler = harness.scheduler();
  ASSERT_THAT(scheduler.Enqueue(MakeSpec(1, Numbers(0, 13), 9)), IsOk());
  harness.Plan();
  ASSERT_THAT(scheduler.Enqueue(MakeSpec(2, Numbers(0, 13), 9)), IsOk());
  harness.Plan();
  EXPECT_EQ(scheduler.cached_tokens(2), 0);
  harness.Drain();
}

TEST(Scheduler, TenantsDoNotShareBlocks) {
  Harness harness(SmallOptions());
  Scheduler& scheduler = harness.scheduler();
  ASSERT_THAT(scheduler.Enqueue(MakeSpec(1, Numbers(0, 13), 1)), IsOk());
  harness.Drain();
  SequenceSpec other = MakeSpec(2, Numbers(0, 13), 1);
  other.tenant = "u";
  ASSERT_THAT(scheduler.Enqueue(other), IsOk());
  harness.Plan();
  EXPECT_EQ(scheduler.cached_tokens(2), 0);
}

TEST(Scheduler, LowerPriorityValuesRunFirstThenFirstComeFirstServed) {
  SchedulerOptions options = SmallOptions();
  options.max_num_seqs = 1;
  Harness harness(options);
  for (SequenceId id = 1; id <= 4; ++id) {
    SequenceSpec spec = MakeSpec(id, {1}, 1);
    spec.priority = id >= 3 ? 0 : 1;
    ASSERT_THAT(harness.scheduler().Enqueue(spec), IsOk());
  }
  std::vector<SequenceId> order;
  for (int i = 0; i < 4; ++i) {
    harness.Plan();
    order.push_back(harness.Accept().at(0).sequence);
  }
  EXPECT_EQ(order, (std::vector<SequenceId>{3, 4, 1, 2}));
}

TEST(Scheduler, WithoutBlocksTheNewestIsPreemptedAndRecomputedExactly) {
  SchedulerOptions options = SmallOptions();
  options.max_model_len = 40;
  options.num_blocks = 10;
  Harness harness(options);
  std::vector<SequenceSpec> specs;
  for (SequenceId id = 1; id <= 3; ++id) {
    specs.push_back(MakeSpec(id, Numbers(static_cast<int32_t>(100 * id), 5), 30));
    ASSERT_THAT(harness.scheduler().Enqueue(specs.back()), IsOk());
  }
  harness.Drain();
  EXPECT_GT(harness.scheduler().stats().preemptions, 0u);
  for (const SequenceSpec& spec : specs) {
    EXPECT_EQ(harness.generated(spec.id), Oracle(spec, 30)) << spec.id;
  }
}

TEST(Scheduler, ANewEpochContinuesEverySequenceFromItsAcceptedTokens) {
  Harness harness(SmallOptions());
  const SequenceSpec spec = MakeSpec(1, Numbers(0, 6), 12);
  ASSERT_THAT(harness.scheduler().Enqueue(spec), IsOk());
  harness.Plan();
  harness.Plan();
  harness.Accept();
  harness.StartEpoch(2);
  EXPECT_EQ(harness.scheduler().num_in_flight(), 0);
  const PlannedStep step = harness.Plan();
  EXPECT_EQ(step.plans[0].epoch, 2u);
  EXPECT_EQ(step.plans[0].step, 1u);
  EXPECT_EQ(step.plans[0].admissions[0].prompt_length, 6u);
  EXPECT_EQ(step.plans[0].work[0].tokens.size(), 7u);
  harness.Drain();
  EXPECT_EQ(harness.generated(1), Oracle(spec, 12));
}

TEST(Scheduler, DpRanksShareTheLoadAndAPrefixDrawsItsFollower) {
  SchedulerOptions options = SmallOptions();
  options.num_dp_ranks = 2;
  Harness harness(options);
  Scheduler& scheduler = harness.scheduler();
  ASSERT_THAT(scheduler.Enqueue(MakeSpec(1, Numbers(0, 13), 1)), IsOk());
  ASSERT_THAT(scheduler.Enqueue(MakeSpec(2, Numbers(50, 13), 1)), IsOk());
  const PlannedStep first = harness.Plan();
  EXPECT_EQ(first.plans[0].admissions.size(), 1u);
  EXPECT_EQ(first.plans[1].admissions.size(), 1u);
  harness.Accept();
  ASSERT_THAT(scheduler.Enqueue(MakeSpec(3, Numbers(50, 14), 1)), IsOk());
  const PlannedStep second = harness.Plan();
  EXPECT_EQ(second.plans[1].admissions.size(), 1u);
  EXPECT_EQ(scheduler.cached_tokens(3), 12);
  harness.Drain();
}

// Of all plans, which have to say the same.
uint32_t DecodeRows(const PlannedStep& step) {
  for (const proto::StepPlan& plan : step.plans) {
    EXPECT_EQ(plan.decode_rows, step.plans[0].decode_rows);
  }
  return step.plans[0].decode_rows;
}

TEST(Scheduler, EveryPlanOfADecodeStepNamesTheRowsOfTheRankWithMost) {
  SchedulerOptions options = SmallOptions();
  options.num_dp_ranks = 2;
  Harness harness(options);
  const auto enqueue = [&](SequenceId id, int32_t length, int64_t max_tokens) {
    const int32_t first = static_cast<int32_t>(10 * id);
    ASSERT_THAT(harness.scheduler().Enqueue(MakeSpec(
                    id, Numbers(first, static_cast<size_t>(length)), max_tokens)),
                IsOk());
  };
  for (SequenceId id = 1; id <= 3; ++id) {
    enqueue(id, 2, 4);
  }
  const auto run = [&] {
    const uint32_t rows = DecodeRows(harness.Plan());
    harness.Accept();
    return rows;
  };
  EXPECT_EQ(run(), 0) << "prompts";
  EXPECT_EQ(run(), 2);
  enqueue(4, 3, 2);
  EXPECT_EQ(run(), 0) << "a prompt on one of the ranks";
  EXPECT_EQ(run(), 2);
  harness.Drain();
}

TEST(Scheduler, ExpiredNamesSequencesAtTheirDeadlineUntilTheyAreFinished) {
  Harness harness(SmallOptions());
  Scheduler& scheduler = harness.scheduler();
  for (SequenceId id = 1; id <= 3; ++id) {
    SequenceSpec spec = MakeSpec(id, {1}, 5);
    spec.deadline = absl::UnixEpoch() + absl::Seconds(static_cast<int64_t>(10 * id));
    ASSERT_THAT(scheduler.Enqueue(spec), IsOk());
  }
  EXPECT_TRUE(scheduler.Expired(absl::UnixEpoch() + absl::Seconds(9)).empty());
  EXPECT_EQ(scheduler.Expired(absl::UnixEpoch() + absl::Seconds(20)),
            (std::vector<SequenceId>{1, 2}));
  scheduler.Finish(1);
  EXPECT_EQ(scheduler.Expired(absl::UnixEpoch() + absl::Seconds(20)),
            (std::vector<SequenceId>{2}));
}

TEST(Scheduler, AProbeRunsOnEveryRankAndLeavesNothing) {
  SchedulerOptions options = SmallOptions();
  options.num_dp_ranks = 2;
  Harness harness(options);
  auto probe = harness.scheduler().PlanProbe(7);
  ASSERT_THAT(probe, IsOk());
  for (const proto::StepPlan& plan : probe->plans) {
    EXPECT_EQ(plan.work.at(0).tokens, std::vector<int32_t>{7});
    EXPECT_EQ(plan.decode_rows, 1);
  }
  EXPECT_THAT(harness.scheduler().PlanProbe(7),
              StatusIs(absl::StatusCode::kFailedPrecondition));
  harness.Execute(*probe);
  EXPECT_TRUE(harness.Accept().empty());
  EXPECT_FALSE(harness.scheduler().has_work());
  EXPECT_EQ(harness.scheduler().stats().blocks_used, 0);
  const SequenceSpec spec = MakeSpec(1, {1}, 2);
  ASSERT_THAT(harness.scheduler().Enqueue(spec), IsOk());
  EXPECT_EQ(harness.Plan().plans[0].releases.size(), 1u);
  harness.Drain();
  EXPECT_EQ(harness.generated(1), Oracle(spec, 2));
}

TEST(Scheduler, RefusesResultsThatDoNotAnswerThePlan) {
  Harness harness(SmallOptions());
  Scheduler& scheduler = harness.scheduler();
  ASSERT_THAT(scheduler.Enqueue(MakeSpec(1, {1, 2}, 5)), IsOk());
  scheduler.Plan(absl::UnixEpoch());
  proto::StepResult good{.epoch = 1, .step = 1, .sampled = {}, .counters = {}};
  good.sampled.push_back({.slot = 0, .token = 3, .position = 2, .logprob = 0, .top = {}});
  const auto refused = [&](const proto::StepResult& result) {
    return !scheduler.Accept(std::vector{result}).ok();
  };
  proto::StepResult bad = good;
  bad.step = 2;
  EXPECT_TRUE(refused(bad));
  bad = good;
  bad.epoch = 2;
  EXPECT_TRUE(refused(bad));
  bad = good;
  bad.sampled.clear();
  EXPECT_TRUE(refused(bad));
  bad = good;
  bad.sampled[0].position = 3;
  EXPECT_TRUE(refused(bad));
  bad = good;
  bad.sampled.push_back(bad.sampled[0]);
  EXPECT_TRUE(refused(bad));
  EXPECT_FALSE(refused(good));
}

TEST(SchedulerTails, APrefixHitNeedsTheTailBlocksOfItsEnd) {
  SchedulerOptions options = SmallOptions();
  options.num_tail_blocks = 4;
  options.tail_tokens = 3;
  Harness harness(options);
  Scheduler& scheduler = harness.scheduler();
  ASSERT_THAT(scheduler.Enqueue(MakeSpec(1, Numbers(0, 16), 1)), IsOk());
  harness.Drain();
  EXPECT_EQ(scheduler.stats().tail_blocks_cached, 4);
  const SequenceSpec hit = MakeSpec(2, Numbers(0, 17), 3);
  ASSERT_THAT(scheduler.Enqueue(hit), IsOk());
  harness.Plan();
  EXPECT_EQ(scheduler.cached_tokens(2), 16);
  harness.Drain();
  EXPECT_EQ(harness.generated(2), Oracle(hit, 3));
  // Another prompt takes all tail blocks; the blocks themselves stay.
  ASSERT_THAT(scheduler.Enqueue(MakeSpec(3, Numbers(100, 20), 1)), IsOk());
  harness.Drain();
  const SequenceSpec miss = MakeSpec(4, Numbers(0, 17), 3);
  ASSERT_THAT(scheduler.Enqueue(miss), IsOk());
  harness.Plan();
  EXPECT_EQ(scheduler.cached_tokens(4), 0);
  EXPECT_EQ(scheduler.stats().prefix_shortened_tokens, 16u);
  harness.Drain();
  EXPECT_EQ(harness.generated(4), Oracle(miss, 3));
}

TEST(SchedulerTails, ANewEpochStartsWithAllTailBlocks) {
  SchedulerOptions options = SmallOptions();
  options.num_tail_blocks = 4;
  options.tail_tokens = 3;
  Harness harness(options);
  const SequenceSpec spec = MakeSpec(1, Numbers(0, 20), 4);
  ASSERT_THAT(harness.scheduler().Enqueue(spec), IsOk());
  harness.Plan();
  harness.StartEpoch(2);
  EXPECT_EQ(harness.scheduler().stats().tail_blocks_used, 0);
  harness.Drain();
  EXPECT_EQ(harness.generated(1), Oracle(spec, 4));
}

TEST(SchedulerTails, RefusesFewerTailBlocksThanOneSequenceNeeds) {
  SchedulerOptions options = SmallOptions();
  options.num_tail_blocks = 2;
  options.tail_tokens = 5;
  EXPECT_THAT(Scheduler::Create(options), StatusIs(absl::StatusCode::kInvalidArgument));
  options.num_tail_blocks = 3;
  EXPECT_THAT(Scheduler::Create(options), IsOk());
}

}  // namespace
}  // namespace tessera::coordinator
