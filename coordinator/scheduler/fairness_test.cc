// Who gets the tokens of a step: tenants by weight, priorities, deadlines, long prompts
// beside short ones, and prompts beside decodes. Random runs are in tests/simulation.
#include <cmath>
#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

#include "coordinator/scheduler/scheduler.h"
#include "tests/testing/status_matchers.h"

namespace tessera::coordinator {
namespace {

using ::tessera::testing::IsOk;
using ::tessera::testing::StatusIs;
using ::testing::ElementsAre;

SchedulerOptions MakeOptions() {
  SchedulerOptions options;
  options.max_num_seqs = 8;
  options.max_num_batched_tokens = 64;
  options.max_model_len = 4096;
  options.block_size = 16;
  options.num_blocks = 1024;
  options.max_waiting = 8000;
  return options;
}

class Fairness : public ::testing::Test {
 protected:
  void Start(const SchedulerOptions& options) {
    auto scheduler = Scheduler::Create(options);
    ASSERT_THAT(scheduler, IsOk());
    scheduler_ = *std::move(scheduler);
  }

  static SequenceSpec Spec(SequenceId id, size_t prompt_length, int64_t max_tokens) {
    SequenceSpec spec;
    spec.id = id;
    // No two prompts share a prefix.
    spec.prompt.assign(prompt_length, static_cast<int32_t>(id));
    spec.max_tokens = max_tokens;
    spec.sampling.seed = id;
    spec.deadline = absl::InfiniteFuture();
    return spec;
  }

  void Enqueue(SequenceSpec spec) {
    ASSERT_THAT(scheduler_->Enqueue(std::move(spec)), IsOk());
  }

  // Plans a step and answers it at once. Ended sequences are finished.
  PlannedStep Step() {
    PlannedStep step = scheduler_->Plan(absl::UnixEpoch());
    proto::StepResult result;
    result.epoch = 1;
    result.step = step.plans[0].step;
    for (const proto::SlotAdmission& admission : step.plans[0].admissions) {
      slots_[admission.slot] = {.id = admission.sampling.seed,
                                .length = admission.history.size()};
    }
    for (const proto::SlotWork& work : step.plans[0].work) {
      Slot& slot = slots_[work.slot];
      slot.length += work.tokens.size();
      tokens_[slot.id] += static_cast<int64_t>(work.tokens.size());
      if (work.sample) {
        result.sampled.push_back({.slot = work.slot,
                                  .token = 5,
                                  .position = static_cast<uint32_t>(slot.length),
                                  .logprob = 0,
                                  .top = {}});
      }
    }
    const auto accepted = scheduler_->Accept({&result, 1});
    EXPECT_THAT(accepted, IsOk());
    EXPECT_THAT(scheduler_->CheckInvariants(), IsOk());
    for (const AcceptedToken& token : *accepted) {
      first_.try_emplace(token.sequence, step.plans[0].step);
      if (token.length_reached) {
        scheduler_->Finish(token.sequence);
        ended_.push_back(token.sequence);
      }
    }
    return step;
  }

  // Tokens of prompts in `step`.
  static std::vector<size_t> Chunks(const PlannedStep& step) {
    std::vector<size_t> chunks;
    for (const proto::SlotWork& work : step.plans[0].work) {
      if (work.tokens.size() > 1) {
        chunks.push_back(work.tokens.size());
      }
    }
    return chunks;
  }

  struct Slot {
    SequenceId id = 0;
    size_t length = 0;
  };

  std::unique_ptr<Scheduler> scheduler_;
  std::map<uint32_t, Slot> slots_;
  std::map<SequenceId, int64_t> tokens_;  // computed of each sequence
  std::map<SequenceId, uint64_t> first_;  // step that gave its first token
  std::vector<SequenceId> ended_;
};

TEST_F(Fairness, NewWeightsShareTheTokensFromThenOn) {
  SchedulerOptions options = MakeOptions();
  options.tenants = {{.name = "a"}, {.name = "b"}};
  Start(options);
  for (SequenceId id = 1; id <= 3000; ++id) {
    SequenceSpec spec = Spec(id, 40, 20);
    spec.tenant = id % 2 == 0 ? "a" : "b";
    Enqueue(std::move(spec));
  }
  const auto run = [this] {
    const SchedulerStats before = scheduler_->stats();
    for (int i = 0; i < 500; ++i) {
      Step();
    }
    const SchedulerStats after = scheduler_->stats();
    return static_cast<double>(after.tenants[0].scheduled_tokens -
                               before.tenants[0].scheduled_tokens) /
           static_cast<double>(after.tenants[1].scheduled_tokens -
                               before.tenants[1].scheduled_tokens);
  };
  EXPECT_NEAR(run(), 1, 0.1);
  const std::vector<TenantPolicy> tenants = {{.name = "a", .weight = 3}, {.name = "b"}};
  ASSERT_THAT(scheduler_->SetTenants(tenants, {}), IsOk());
  EXPECT_NEAR(run(), 3, 0.3);
  const std::vector<TenantPolicy> wrong = {{.name = "a", .weight = -1}};
  EXPECT_THAT(scheduler_->SetTenants(wrong, {}),
              StatusIs(absl::StatusCode::kInvalidArgument));
}

TEST_F(Fairness, ANewcomerNeedNotWaitUntilASequenceOfAFloodEnds) {
  SchedulerOptions options = MakeOptions();
  options.max_num_seqs = 4;
  Start(options);
  for (SequenceId id = 1; id <= 6; ++id) {
    SequenceSpec spec = Spec(id, 8, 500);
    spec.tenant = "flood";
    Enqueue(std::move(spec));
  }
  for (int i = 0; i < 4; ++i) {
    Step();
  }
  for (SequenceId id = 11; id <= 14; ++id) {
    SequenceSpec spec = Spec(id, 8, 500);
    spec.tenant = "newcomer";
    Enqueue(std::move(spec));
  }
  const uint64_t step = Step().plans[0].step;
  EXPECT_EQ(first_[11], step);
  for (int i = 0; i < 20; ++i) {
    Step();
  }
  // Two of four slots; the second once the prompt of the first is made up for.
  EXPECT_TRUE(first_.contains(12));
  EXPECT_FALSE(first_.contains(13));
  EXPECT_EQ(scheduler_->stats().preemptions, 2u);
  for (int i = 0; i < 100; ++i) {
    Step();
  }
  EXPECT_EQ(scheduler_->stats().preemptions, 2u) << "nobody takes turns";
}

TEST_F(Fairness, ASlotIsTakenOnlyWhereTheNewcomerFindsItsBlocksToo) {
  SchedulerOptions options = MakeOptions();
  options.max_num_seqs = 2;
  options.num_blocks = 256;
  Start(options);
  for (SequenceId id = 1; id <= 2; ++id) {
    SequenceSpec spec = Spec(id, 1600, 500);
    spec.tenant = "flood";
    Enqueue(std::move(spec));
  }
  for (int i = 0; i < 60; ++i) {
    Step();
  }
  SequenceSpec spec = Spec(3, 1600, 500);
  spec.tenant = "newcomer";
  Enqueue(std::move(spec));
  Step();
  EXPECT_EQ(scheduler_->stats().preemptions, 0u);
}

TEST_F(Fairness, TenantsThatAlwaysHaveWorkGetTokensInTheRatioOfTheirWeights) {
  SchedulerOptions options = MakeOptions();
  options.tenants = {{.name = "a", .weight = 3}, {.name = "b", .weight = 1}};
  Start(options);
  SequenceId id = 1;
  // The one of less weight comes first and with longer requests.
  for (int i = 0; i < 3000; ++i) {
    SequenceSpec spec = Spec(id++, 40, 20);
    spec.tenant = i % 2 == 0 ? "b" : "a";
    if (spec.tenant == "b") {
      spec.prompt.resize(120, 1);
    }
    Enqueue(std::move(spec));
  }
  for (int i = 0; i < 1200; ++i) {
    Step();
  }
  const SchedulerStats stats = scheduler_->stats();
  ASSERT_GT(stats.tenants[0].num_waiting, 0);
  ASSERT_GT(stats.tenants[1].num_waiting, 0);
  const auto a = static_cast<double>(stats.tenants[0].scheduled_tokens);
  const auto b = static_cast<double>(stats.tenants[1].scheduled_tokens);
  // Virtual times differ by what may be admitted at once at most.
  const double bound = 2.0 * 8 * 140;
  EXPECT_LE(std::abs(a / 3 - b), bound);
  EXPECT_GT(b, 2 * bound) << "the bound says something";
}

TEST_F(Fairness, AShortPromptOvertakesALongOneThatStillAdvances) {
  Start(MakeOptions());
  Enqueue(Spec(1, 3000, 2));
  Step();
  for (SequenceId id = 2; id <= 40; ++id) {
    Enqueue(Spec(id, 40, 1));
    const int64_t before = tokens_[1];
    Step();
    EXPECT_TRUE(first_.contains(id)) << id;
    EXPECT_GE(tokens_[1] - before, 16) << id;
  }
}

TEST_F(Fairness, ALongPromptTakesFourTimesAsLongAtMostBesideAFlood) {
  SchedulerOptions options = MakeOptions();
  options.max_num_seqs = 64;
  Start(options);
  Enqueue(Spec(1, 1600, 1));
  Step();
  SequenceId id = 2;
  int steps = 1;
  for (; !first_.contains(1) && steps < 200; ++steps) {
    for (int i = 0; i < 4; ++i) {
      Enqueue(Spec(id++, 30, 1));
    }
    Step();
  }
  EXPECT_LE(steps, 4 * 1600 / 64 + 1);
}

TEST_F(Fairness, BesideDecodesAChunkShrinksWithItsContext) {
  SchedulerOptions options = MakeOptions();
  options.max_num_batched_tokens = 129;
  options.prefill_cost_tokens = 512;
  Start(options);
  Enqueue(Spec(1, 4, 4000));
  Step();
  Enqueue(Spec(2, 4000, 1));
  std::vector<size_t> chunks;
  while (!first_.contains(2)) {
    const PlannedStep step = Step();
    ASSERT_EQ(step.num_tokens - step.num_prefill_tokens, 1) << "the decode is in each";
    chunks.push_back(Chunks(step).at(0));
  }
  EXPECT_EQ(chunks[0], 128u);
  EXPECT_EQ(chunks[1], 102u);  // 128 / (1 + 128 / 512)
  for (size_t i = 1; i + 1 < chunks.size(); ++i) {
    EXPECT_LE(chunks[i], chunks[i - 1]);
    EXPECT_GE(chunks[i], 16u) << "the least that a chunk has";
  }
}

TEST_F(Fairness, WithoutDecodesAChunkHasAllTokensOfTheStep) {
  SchedulerOptions options = MakeOptions();
  options.prefill_cost_tokens = 16;
  Start(options);
  Enqueue(Spec(1, 640, 1));
  for (int i = 0; i < 10; ++i) {
    EXPECT_THAT(Chunks(Step()), ElementsAre(64u));
  }
}

TEST_F(Fairness, AnUrgentSequenceTakesTheSlotOfAWorseOne) {
  SchedulerOptions options = MakeOptions();
  options.max_num_seqs = 2;
  Start(options);
  for (SequenceId id = 1; id <= 2; ++id) {
    SequenceSpec spec = Spec(id, 4, 100);
    spec.priority = static_cast<int32_t>(id);
    Enqueue(std::move(spec));
  }
  Step();
  SequenceSpec urgent = Spec(3, 4, 3);
  Enqueue(std::move(urgent));
  Step();
  EXPECT_TRUE(first_.contains(3));
  EXPECT_EQ(scheduler_->stats().preemptions, 1u);
  const int64_t before = tokens_[1];
  Step();
  EXPECT_EQ(tokens_[1] - before, 1) << "the better of the two goes on";
  Step();
  Step();
  EXPECT_THAT(ended_, ElementsAre(3u));
  EXPECT_EQ(scheduler_->stats().num_running, 2);
}

TEST_F(Fairness, AnUrgentSequenceTakesTheBlocksOfWorseOnesAndNoMore) {
  SchedulerOptions options = MakeOptions();
  options.max_model_len = 512;
  options.num_blocks = 36;
  Start(options);
  for (SequenceId id = 1; id <= 3; ++id) {
    SequenceSpec spec = Spec(id, 130, 20);
    spec.priority = 1;
    Enqueue(std::move(spec));
  }
  for (int i = 0; i < 8; ++i) {
    Step();
  }
  ASSERT_EQ(scheduler_->stats().num_running, 3);
  Enqueue(Spec(4, 200, 3));
  Step();
  Step();
  Step();
  EXPECT_EQ(scheduler_->stats().preemptions, 1u);
  while (!first_.contains(4)) {
    Step();
  }
  EXPECT_EQ(scheduler_->stats().preemptions, 1u);
}

TEST_F(Fairness, ATenantsRequestsGetNoBetterPriorityThanItIsGranted) {
  SchedulerOptions options = MakeOptions();
  options.max_num_seqs = 1;
  options.tenants = {{.name = "a", .best_priority = 0}};
  Start(options);
  Enqueue(Spec(1, 4, 10));
  Step();
  SequenceSpec pushy = Spec(2, 4, 1);
  pushy.tenant = "a";
  pushy.priority = -1000;
  Enqueue(std::move(pushy));
  Step();
  EXPECT_EQ(scheduler_->stats().preemptions, 0u);
  EXPECT_FALSE(first_.contains(2));
}

TEST_F(Fairness, EqualPrioritiesPreemptNobody) {
  SchedulerOptions options = MakeOptions();
  options.max_num_seqs = 1;
  Start(options);
  Enqueue(Spec(1, 4, 10));
  Step();
  Enqueue(Spec(2, 4, 10));
  for (int i = 0; i < 9; ++i) {
    Step();
  }
  EXPECT_EQ(scheduler_->stats().preemptions, 0u);
  EXPECT_THAT(ended_, ElementsAre(1u));
}

TEST_F(Fairness, InsideATenantTheEarliestDeadlineIsAdmittedFirst) {
  SchedulerOptions options = MakeOptions();
  options.max_num_seqs = 1;
  Start(options);
  for (SequenceId id = 1; id <= 3; ++id) {
    SequenceSpec spec = Spec(id, 4, 1);
    spec.deadline = absl::UnixEpoch() + absl::Seconds(10 - static_cast<int64_t>(id));
    Enqueue(std::move(spec));
  }
  Step();
  Step();
  Step();
  EXPECT_THAT(ended_, ElementsAre(3u, 2u, 1u));
}

TEST_F(Fairness, AQuotaLimitsWhatRunsAndHoldsBackNobodyElse) {
  SchedulerOptions options = MakeOptions();
  options.tenants = {{.name = "a", .max_running_tokens = 100}};
  Start(options);
  SequenceSpec never = Spec(9, 60, 60);
  never.tenant = "a";
  EXPECT_THAT(scheduler_->Enqueue(never), StatusIs(absl::StatusCode::kInvalidArgument));
  for (SequenceId id = 1; id <= 4; ++id) {
    SequenceSpec spec = Spec(id, 4, 40);
    spec.tenant = id <= 3 ? "a" : "b";
    Enqueue(std::move(spec));
  }
  Step();
  EXPECT_EQ(scheduler_->stats().tenants[0].num_running, 2);
  EXPECT_EQ(scheduler_->stats().tenants[0].num_waiting, 1);
  EXPECT_EQ(scheduler_->stats().num_running, 3);
}

TEST_F(Fairness, RefusesTenantsThatCannotWork) {
  SchedulerOptions options = MakeOptions();
  options.tenants = {{.name = "a", .weight = 0}};
  EXPECT_THAT(Scheduler::Create(options), StatusIs(absl::StatusCode::kInvalidArgument));
  options.tenants = {{.name = "a"}, {.name = "a"}};
  EXPECT_THAT(Scheduler::Create(options), StatusIs(absl::StatusCode::kInvalidArgument));
}

}  // namespace
}  // namespace tessera::coordinator
