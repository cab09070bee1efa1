// How the scheduler plans drafts and takes back those that were refused; the checks of a
// single answer are in planned_work_test, random runs in tests/simulation.
#include <cstdint>
#include <memory>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

#include "coordinator/scheduler/scheduler.h"
#include "tests/testing/status_matchers.h"

namespace tessera::coordinator {
namespace {

using ::tessera::testing::IsOk;

SchedulerOptions SmallOptions() {
  SchedulerOptions options;
  options.max_num_seqs = 4;
  options.max_num_batched_tokens = 64;
  options.max_model_len = 64;
  options.block_size = 4;
  options.num_blocks = 32;
  options.num_speculative_tokens = 3;
  return options;
}

class Speculation : public ::testing::Test {
 protected:
  void Start(const SchedulerOptions& options) {
    auto scheduler = Scheduler::Create(options);
    ASSERT_THAT(scheduler, IsOk());
    scheduler_ = *std::move(scheduler);
    scheduler_->StartEpoch(1);
  }

  void Enqueue(SequenceId id, size_t prompt_length, int64_t max_tokens) {
    SequenceSpec spec;
    spec.id = id;
    spec.prompt.assign(prompt_length, static_cast<int32_t>(id));
    spec.max_tokens = max_tokens;
    spec.deadline = absl::InfiniteFuture();
    ASSERT_THAT(scheduler_->Enqueue(spec), IsOk());
  }

  proto::StepPlan Plan() { return scheduler_->Plan(absl::UnixEpoch()).plans[0]; }

  // Answers the oldest step with `count` tokens, 100 up, for slot 0 at `position`.
  std::vector<AcceptedToken> Accept(uint32_t position, int32_t count) {
    proto::StepResult result{
        .epoch = 1, .step = ++accepted_steps_, .sampled = {}, .counters = {}};
    for (int32_t i = 0; i < count; ++i) {
      result.sampled.push_back({.slot = 0,
                                .token = 100 + i,
                                .position = position + static_cast<uint32_t>(i),
                                .logprob = 0,
                                .top = {}});
    }
    const auto accepted = scheduler_->Accept({&result, 1});
    EXPECT_THAT(accepted, IsOk());
    EXPECT_THAT(scheduler_->CheckInvariants(), IsOk());
    return accepted.value_or(std::vector<AcceptedToken>());
  }

  std::unique_ptr<Scheduler> scheduler_;
  uint64_t accepted_steps_ = 0;
};

TEST_F(Speculation, EveryDecodeIsPlannedWithDraftsAheadOfTheAnswer) {
  Start(SmallOptions());
  Enqueue(1, 5, 40);
  const proto::StepPlan prefill = Plan();
  EXPECT_EQ(prefill.work.at(0).num_drafts, 0u);
  EXPECT_TRUE(prefill.work.at(0).sample);
  const proto::StepPlan ahead = Plan();
  EXPECT_TRUE(ahead.work.at(0).from_sample);
  EXPECT_EQ(ahead.work.at(0).num_drafts, 3u);
  // Positions 5 to 8: a third block.
  ASSERT_EQ(ahead.appends.size(), 1u);
  EXPECT_EQ(ahead.appends[0].blocks.size(), 1u);
}

TEST_F(Speculation, AMaskedSequenceHasNoDraftsAndItsWorkIsListed) {
  SchedulerOptions options = SmallOptions();
  options.max_model_len = 128;
  options.num_blocks = 64;
  Start(options);
  SequenceSpec spec;
  spec.id = 7;
  spec.prompt.assign(70, 3);  // more than a step's tokens
  spec.max_tokens = 3;
  spec.masked = true;
  spec.deadline = absl::InfiniteFuture();
  ASSERT_THAT(scheduler_->Enqueue(spec), IsOk());
  Enqueue(8, 5, 40);
  for (int step = 0; step < 2; ++step) {
    const PlannedStep planned = scheduler_->Plan(absl::UnixEpoch());
    ASSERT_EQ(planned.masked.size(), 1u);
    std::vector<uint32_t> slots;
    for (const proto::SlotWork& work : planned.plans[0].work) {
      if (work.masked) {
        EXPECT_TRUE(work.sample);
        EXPECT_EQ(work.num_drafts, 0u);
        slots.push_back(work.slot);
      }
    }
    ASSERT_EQ(slots.size(), planned.masked[0].size());
    for (size_t i = 0; i < slots.size(); ++i) {
      EXPECT_EQ(planned.masked[0][i].slot, slots[i]);
      EXPECT_EQ(planned.masked[0][i].sequence, 7u);
    }
    EXPECT_EQ(slots.size(), step == 0 ? 0u : 1u) << "the prompt takes two steps";
  }
}

TEST_F(Speculation, WithoutAStepAheadDraftsFollowTheKnownToken) {
  Start(SmallOptions());
  Enqueue(1, 5, 40);
  Plan();
  Accept(5, 1);
  const proto::StepPlan plan = Plan();
  EXPECT_FALSE(plan.work.at(0).from_sample);
  EXPECT_EQ(plan.work.at(0).tokens, (std::vector<int32_t>{100}));
  EXPECT_EQ(plan.work.at(0).num_drafts, 3u);
}

TEST_F(Speculation, TokensOfOneStepAreAcceptedInOrder) {
  Start(SmallOptions());
  Enqueue(1, 5, 40);
  Plan();
  Plan();
  Accept(5, 1);
  const std::vector<AcceptedToken> accepted = Accept(6, 3);
  ASSERT_EQ(accepted.size(), 3u);
  for (int32_t i = 0; i < 3; ++i) {
    EXPECT_EQ(accepted[static_cast<size_t>(i)].index, 1 + i);
    EXPECT_EQ(accepted[static_cast<size_t>(i)].sampled.token, 100 + i);
  }
}

TEST_F(Speculation, BlocksReservedForRefusedDraftsAreUsedByTheNextOnes) {
  Start(SmallOptions());
  Enqueue(1, 5, 40);
  Plan();
  size_t num_appended = 0;
  for (uint32_t position = 5; position < 25; ++position) {
    for (const proto::BlockAppend& append : Plan().appends) {
      num_appended += append.blocks.size();
    }
    Accept(position, 1);
  }
  // After 20 steps that each refused all their drafts: at most 27 + 3 positions planned
  // with the step in flight, in place of 20 times 4.
  EXPECT_LE(num_appended, 6u);
}

TEST_F(Speculation, DraftsNeverReachBeyondTheLength) {
  Start(SmallOptions());
  Enqueue(1, 5, 6);  // 11 tokens at most
  Plan();
  // Up to 10 tokens after this one, if all its drafts stand.
  EXPECT_EQ(Plan().work.at(0).num_drafts, 3u);
  Accept(5, 1);
  // From the tenth on there is room for the sampled token alone.
  EXPECT_EQ(Plan().work.at(0).num_drafts, 0u);
  Accept(6, 1);
  // One of four stood: 7 tokens are known, one is in flight.
  EXPECT_EQ(Plan().work.at(0).num_drafts, 2u);
}

TEST_F(Speculation, TokensBeyondTheLengthAreDropped) {
  Start(SmallOptions());
  Enqueue(1, 5, 5);  // 10 tokens at most
  Plan();
  Plan();
  Accept(5, 1);
  Plan();  // The one before may yield 4 tokens, or 1.
  const std::vector<AcceptedToken> full = Accept(6, 4);
  ASSERT_EQ(full.size(), 4u);
  EXPECT_TRUE(full.back().length_reached);
  EXPECT_FALSE(full[2].length_reached);
  scheduler_->Finish(1);
  EXPECT_TRUE(Accept(10, 1).empty());
  EXPECT_EQ(scheduler_->stats().num_running, 0);
}

TEST_F(Speculation, AStopAmongTheTokensDropsTheStepAheadAsWell) {
  Start(SmallOptions());
  Enqueue(1, 5, 40);
  Plan();
  Plan();
  Accept(5, 1);
  Plan();
  EXPECT_EQ(Accept(6, 4).size(), 4u);
  scheduler_->Finish(1);  // Its second token was a stop.
  EXPECT_TRUE(Accept(10, 2).empty());
  EXPECT_EQ(scheduler_->stats().blocks_used, 0);
}

TEST_F(Speculation, PrefixKeysCoverAcceptedTokensOnly) {
  Start(SmallOptions());
  Enqueue(1, 5, 40);
  Plan();
  Plan();  // positions 5 to 8 at most
  Accept(5, 1);
  Accept(6, 2);  // 5 and 6 stand, 7 and 8 hold refused drafts
  scheduler_->Finish(1);
  EXPECT_EQ(scheduler_->stats().blocks_cached, 1);
}

TEST_F(Speculation, EverySequenceKeepsATokenAndPromptsHalfOfTheRest) {
  SchedulerOptions options = SmallOptions();
  options.max_num_batched_tokens = 10;
  options.num_speculative_tokens = 5;
  Start(options);
  for (SequenceId id = 1; id <= 2; ++id) {
    Enqueue(id, 3, 40);
  }
  Plan();
  Enqueue(3, 30, 1);
  const proto::StepPlan plan = Plan();
  ASSERT_EQ(plan.work.size(), 3u);
  // (10 - 2) / 2 for drafts, first come first served; the rest for the prompt.
  EXPECT_EQ(plan.work[0].num_drafts, 4u);
  EXPECT_EQ(plan.work[1].num_drafts, 0u);
  EXPECT_EQ(plan.work[2].tokens.size(), 4u);
}

TEST_F(Speculation, DraftsTakeNoBlockThatAnotherSequenceMayNeed) {
  SchedulerOptions options = SmallOptions();
  options.max_model_len = 12;
  options.num_blocks = 3;
  Start(options);
  Enqueue(1, 3, 9);
  Plan();
  Accept(3, 1);
  const proto::StepPlan plan = Plan();
  EXPECT_EQ(plan.work.at(0).num_drafts, 3u);
  ASSERT_EQ(plan.appends.size(), 1u) << "the second of three blocks, for drafts alone";
  Accept(4, 4);
  // Position 7 ends the second block. Drafts would need the third, which is kept back.
  const proto::StepPlan next = Plan();
  EXPECT_EQ(next.work.at(0).num_drafts, 0u);
  EXPECT_TRUE(next.appends.empty());
}

TEST_F(Speculation, AChunkInsideAPromptSaysWhichTokenFollowsIt) {
  SchedulerOptions options = SmallOptions();
  options.max_num_batched_tokens = 4;
  Start(options);
  Enqueue(7, 6, 40);
  EXPECT_EQ(Plan().work.at(0).next_token, 7);
  EXPECT_EQ(Plan().work.at(0).next_token, -1) << "the sampled one";
}

TEST_F(Speculation, AnEpochStartsFromAcceptedTokensAlone) {
  Start(SmallOptions());
  Enqueue(1, 5, 40);
  Plan();
  Plan();
  Accept(5, 1);
  Plan();
  scheduler_->StartEpoch(2);
  const proto::StepPlan plan = Plan();
  ASSERT_EQ(plan.admissions.size(), 1u);
  EXPECT_EQ(plan.work.at(0).tokens.size(), 6u);
  EXPECT_EQ(plan.work.at(0).num_drafts, 0u);
}

TEST(SpeculationOptions, RefuseMoreDraftsThanAPlanCanHold) {
  SchedulerOptions options = SmallOptions();
  options.num_speculative_tokens = static_cast<int64_t>(proto::kMaxDrafts) + 1;
  EXPECT_THAT(Scheduler::Create(options),
              testing::StatusIs(absl::StatusCode::kInvalidArgument));
}

}  // namespace
}  // namespace tessera::coordinator
