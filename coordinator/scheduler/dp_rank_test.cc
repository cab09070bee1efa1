#include "coordinator/scheduler/dp_rank.h"

#include <memory>
#include <vector>

#include "gtest/gtest.h"

#include "coordinator/scheduler/tenant_account.h"
#include "tests/testing/status_matchers.h"

namespace tessera::coordinator {
namespace {

using ::tessera::testing::IsOk;
using ::tessera::testing::StatusIs;

constexpr uint64_t kEpoch = 1;

SchedulerOptions SmallOptions() {
  SchedulerOptions options;
  options.max_num_seqs = 4;
  options.max_num_batched_tokens = 8;
  options.max_model_len = 16;
  options.block_size = 4;
  options.num_blocks = 4;
  return options;
}

// One rank with the plans that it made.
class DpRankTest : public ::testing::Test {
 protected:
  std::unique_ptr<Sequence> MakeSequence(SequenceId id, size_t prompt_length) {
    auto sequence = std::make_unique<Sequence>();
    sequence->spec.id = id;
    sequence->tenant = &tenant_;
    sequence->order = id;
    sequence->tokens.assign(prompt_length, static_cast<int32_t>(id));
    sequence->prompt_length = static_cast<int64_t>(prompt_length);
    sequence->max_length = 16;
    return sequence;
  }

  void PlanPrefills() {
    rank_->BeginPrefills(/*bounded=*/true);
    while (Sequence* next = rank_->NextPrefill()) {
      rank_->PlanPrefill(next);
    }
    rank_->FinishPrefills();
  }

  proto::StepPlan* Begin() {
    plans_.push_back(std::make_unique<proto::StepPlan>());
    plans_.back()->step = plans_.size();
    rank_->BeginPlan(plans_.back().get());
    return plans_.back().get();
  }

  std::vector<Sequence*> PlanDecodes() {
    std::vector<Sequence*> preempted;
    rank_->PlanDecodes(&preempted);
    return preempted;
  }

  // Answers the oldest plan with token 9 for each sample.
  proto::StepResult Answer() const {
    proto::StepResult result{.epoch = kEpoch,
                             .step = rank_->in_flight().front().step,
                             .sampled = {},
                             .counters = {}};
    for (const PlannedWork& work : rank_->in_flight().front().work) {
      if (work.sample) {
        result.sampled.push_back(
            {.slot = work.slot,
             .token = 9,
             .position = static_cast<uint32_t>(work.last_sample_position),
             .logprob = 0,
             .top = {}});
      }
    }
    return result;
  }

  std::vector<AcceptedToken> Accept() {
    std::vector<AcceptedToken> accepted;
    const proto::StepResult result = Answer();
    EXPECT_THAT(rank_->CheckResult(kEpoch, result), IsOk());
    rank_->Accept(PrefixHash({1, 2}), result, &accepted);
    EXPECT_THAT(rank_->CheckInvariants(), IsOk());
    return accepted;
  }

  TenantAccount tenant_;
  std::unique_ptr<DpRank> rank_ = *DpRank::Create(SmallOptions(), 3);
  std::vector<std::unique_ptr<proto::StepPlan>> plans_;
};

TEST_F(DpRankTest, AdmissionTakesBlocksForAllKnownTokensAndPlansTheFirstChunk) {
  auto sequence = MakeSequence(1, 10);
  proto::StepPlan* plan = Begin();
  rank_->Admit(sequence.get(), {});
  const RankStepTotals totals = rank_->EndPlan();
  EXPECT_EQ(sequence->dp_rank, 3);
  EXPECT_EQ(plan->admissions.at(0).blocks.size(), 3u);
  EXPECT_EQ(plan->work.at(0).tokens.size(), 8u);
  EXPECT_FALSE(plan->work.at(0).sample);
  EXPECT_EQ(totals.num_prefill_tokens, 8);
  EXPECT_EQ(rank_->pending_tokens(), 2);
}

TEST_F(DpRankTest, OneBlockPerRunningSequenceIsKeptBackFromAdmissions) {
  auto sequence = MakeSequence(1, 2);
  EXPECT_EQ(rank_->blocks_for_admission(rank_->Match(*sequence)), 4);
  Begin();
  rank_->Admit(sequence.get(), {});
  rank_->EndPlan();
  EXPECT_EQ(rank_->blocks_for_admission(rank_->Match(*MakeSequence(2, 2))), 2);
}

TEST_F(DpRankTest, ADecodeWithoutABlockPreemptsTheNewestOnlyOnce) {
  auto older = MakeSequence(1, 4);
  auto newer = MakeSequence(2, 4);
  auto newest = MakeSequence(3, 4);
  Begin();
  rank_->Admit(older.get(), {});
  rank_->Admit(newer.get(), {});
  rank_->EndPlan();
  Begin();
  rank_->Admit(newest.get(), {});
  rank_->EndPlan();
  EXPECT_EQ(Accept().size(), 2u);
  // `older` takes the last free block; `newer` makes room by ending `newest`, whose step
  // is in flight, so that its block comes later.
  proto::StepPlan* plan = Begin();
  EXPECT_EQ(PlanDecodes(), std::vector<Sequence*>{newest.get()});
  rank_->EndPlan();
  EXPECT_EQ(plan->releases, std::vector<uint32_t>{2});
  EXPECT_EQ(plan->work.size(), 1u);
  EXPECT_EQ(rank_->running().size(), 2u);
  EXPECT_EQ(Accept().size(), 1u);
  EXPECT_EQ(newest->tokens.back(), 9) << "a preempted sequence keeps the token in flight";
  plan = Begin();
  EXPECT_TRUE(PlanDecodes().empty());
  rank_->EndPlan();
  EXPECT_EQ(plan->work.size(), 2u);
}

// A token sees the three before it: the token at 7 is the first that does not see
// block 0.
class DpRankTailTest : public DpRankTest {
 protected:
  void Create(int64_t num_tail_blocks) {
    SchedulerOptions options = SmallOptions();
    options.max_model_len = 64;
    options.num_blocks = 32;
    options.num_tail_blocks = num_tail_blocks;
    options.tail_tokens = 3;
    rank_ = *DpRank::Create(options, 3);
  }

  int64_t num_free_tails() const { return rank_->blocks().tail_pool().num_free(); }
};

TEST_F(DpRankTailTest, ChunksAreCutToTheTailBlocksThatThereAre) {
  Create(4);
  auto sequence = MakeSequence(1, 20);
  proto::StepPlan* plan = Begin();
  rank_->Admit(sequence.get(), {});
  rank_->EndPlan();
  EXPECT_EQ(plan->admissions.at(0).blocks.size(), 5u);
  EXPECT_EQ(plan->admissions.at(0).tail_blocks.size(), 1u);
  EXPECT_EQ(plan->appends.at(0).tail_blocks.size(), 1u);
  EXPECT_EQ(plan->work.at(0).tokens.size(), 8u);
  // Ahead of the answer: one block is kept back, the chunk ends with the other.
  plan = Begin();
  EXPECT_TRUE(PlanDecodes().empty());
  PlanPrefills();
  rank_->EndPlan();
  EXPECT_EQ(plan->appends.at(0).tail_blocks.size(), 1u);
  EXPECT_EQ(plan->work.at(0).tokens.size(), 4u);
}

TEST_F(DpRankTailTest, BlocksThatNoTokenToComeSeesAreGivenBackOnceAccepted) {
  Create(8);
  auto sequence = MakeSequence(1, 7);
  Begin();
  rank_->Admit(sequence.get(), {});
  rank_->EndPlan();
  EXPECT_EQ(num_free_tails(), 6);
  Begin();
  EXPECT_TRUE(PlanDecodes().empty());
  rank_->EndPlan();
  EXPECT_EQ(num_free_tails(), 6) << "both steps are in flight";
  Accept();
  EXPECT_EQ(sequence->tail.begin, 1);
  EXPECT_EQ(num_free_tails(), 7);
  rank_->Remove(sequence.get());
  EXPECT_EQ(num_free_tails(), 7) << "the second step still reads its blocks";
  Accept();
  EXPECT_EQ(num_free_tails(), 8);
}

TEST_F(DpRankTailTest, ADecodeWithoutATailBlockPreemptsTheNewestOnlyOnce) {
  Create(4);
  auto older = MakeSequence(1, 4);
  auto newer = MakeSequence(2, 4);
  auto newest = MakeSequence(3, 4);
  Begin();
  rank_->Admit(older.get(), {});
  rank_->Admit(newer.get(), {});
  rank_->EndPlan();
  Begin();
  rank_->Admit(newest.get(), {});
  rank_->EndPlan();
  Accept();
  // As above: `newer` waits for the tail block that `newest` leaves behind.
  proto::StepPlan* plan = Begin();
  EXPECT_EQ(PlanDecodes(), std::vector<Sequence*>{newest.get()});
  rank_->EndPlan();
  EXPECT_EQ(plan->work.size(), 1u);
  Accept();
  plan = Begin();
  EXPECT_TRUE(PlanDecodes().empty());
  rank_->EndPlan();
  EXPECT_EQ(plan->work.size(), 2u);
}

TEST_F(DpRankTailTest, TheBestPromptGetsItsTailBlockBeforeWorseDecodes) {
  Create(3);
  auto best = MakeSequence(1, 12);
  auto worse = MakeSequence(2, 4);
  Begin();
  rank_->Admit(worse.get(), {});
  rank_->Admit(best.get(), {});
  rank_->EndPlan();
  Accept();
  proto::StepPlan* plan = Begin();
  EXPECT_EQ(PlanDecodes(), std::vector<Sequence*>{worse.get()});
  PlanPrefills();
  rank_->EndPlan();
  EXPECT_EQ(plan->work.at(0).slot, best->slot);
  EXPECT_EQ(plan->work.at(0).tokens.size(), 4u);
}

TEST_F(DpRankTailTest, AnAdmissionLeavesATailBlockToEachRunningSequence) {
  Create(3);
  auto sequence = MakeSequence(1, 4);
  Begin();
  rank_->Admit(sequence.get(), {});
  PrefixMatch match;
  match.num_spare_tails = rank_->blocks().num_free_tails_for({});
  EXPECT_TRUE(rank_->HasTailRoom(match));
  --match.num_spare_tails;  // the match takes one of them
  EXPECT_FALSE(rank_->HasTailRoom(match));
  rank_->EndPlan();
}

TEST_F(DpRankTest, AnswersInAnyOrderOfSlotsAreTakenAndWrongOnesRefused) {
  auto first = MakeSequence(1, 2);
  auto second = MakeSequence(2, 3);
  Begin();
  rank_->Admit(first.get(), {});
  rank_->Admit(second.get(), {});
  rank_->EndPlan();
  proto::StepResult result = Answer();
  std::swap(result.sampled[0], result.sampled[1]);
  EXPECT_THAT(rank_->CheckResult(kEpoch, result), IsOk());
  result.sampled[1] = result.sampled[0];
  EXPECT_THAT(rank_->CheckResult(kEpoch, result), StatusIs(absl::StatusCode::kInternal));
}

}  // namespace
}  // namespace tessera::coordinator
