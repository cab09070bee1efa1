// Who gives a place up for a better priority, through the scheduler as a whole: that the
// better one gets it, and that nobody gives one up in vain or again and again.
#include "coordinator/scheduler/victims.h"

#include <deque>
#include <map>
#include <memory>
#include <vector>

#include "gtest/gtest.h"

#include "coordinator/scheduler/scheduler.h"
#include "tests/testing/status_matchers.h"
#include "tests/testing/stub_worker.h"

namespace tessera::coordinator {
namespace {

using ::tessera::testing::IsOk;
using ::tessera::testing::StubWorker;

constexpr int64_t kBlockSize = 16;

class Victims : public ::testing::Test {
 protected:
  void Start(int64_t num_dp_ranks, int64_t max_num_seqs = 16) {
    workers_.clear();
    results_.clear();
    num_tokens_.clear();
    SchedulerOptions options;
    options.num_dp_ranks = num_dp_ranks;
    options.max_num_seqs = max_num_seqs;
    options.max_num_batched_tokens = 2048;
    options.max_model_len = 100 * kBlockSize;
    options.block_size = kBlockSize;
    options.num_blocks = 100;
    scheduler_ = *Scheduler::Create(options);
    for (int64_t i = 0; i < num_dp_ranks; ++i) {
      workers_.emplace_back(testing::StubWorkerOptions{.num_blocks = 100,
                                                       .block_size = kBlockSize,
                                                       .max_num_seqs = max_num_seqs,
                                                       .max_num_batched_tokens = 2048});
    }
  }

  // A prompt that leaves the last of its blocks nearly empty.
  void Enqueue(SequenceId id, int32_t priority, int64_t num_blocks, int64_t max_tokens) {
    SequenceSpec spec;
    spec.id = id;
    spec.prompt.assign(static_cast<size_t>((num_blocks - 1) * kBlockSize + 2),
                       static_cast<int32_t>(id));
    spec.max_tokens = max_tokens;
    spec.priority = priority;
    spec.deadline = absl::InfiniteFuture();
    ASSERT_THAT(scheduler_->Enqueue(std::move(spec)), IsOk());
  }

  void Plan() {
    const PlannedStep step = scheduler_->Plan(absl::UnixEpoch());
    results_.emplace_back();
    for (size_t i = 0; i < workers_.size(); ++i) {
      const auto result = workers_[i].Execute(step.plans[i]);
      ASSERT_THAT(result, IsOk());
      results_.back().push_back(*result);
    }
  }

  void Accept() {
    const auto accepted = scheduler_->Accept(results_.front());
    results_.pop_front();
    ASSERT_THAT(accepted, IsOk());
    for (const AcceptedToken& token : *accepted) {
      ++num_tokens_[token.sequence];
      if (token.length_reached) {
        scheduler_->Finish(token.sequence);
      }
    }
    ASSERT_THAT(scheduler_->CheckInvariants(), IsOk());
  }

  // So many steps, with `num_ahead` others in flight.
  void Run(int num_steps, size_t num_ahead = 0) {
    for (int i = 0; i < num_steps; ++i) {
      Plan();
      while (results_.size() > num_ahead) {
        Accept();
      }
    }
  }

  uint64_t preemptions() const { return scheduler_->stats().preemptions; }

  std::unique_ptr<Scheduler> scheduler_;
  std::vector<StubWorker> workers_;
  std::deque<std::vector<proto::StepResult>> results_;
  std::map<SequenceId, int64_t> num_tokens_;  // generated of each sequence
};

TEST_F(Victims, ManySmallOnesMoveOverForALargeOneOnceEach) {
  for (const size_t num_ahead : {0u, 1u}) {
    SCOPED_TRACE(num_ahead);
    Start(1);
    for (SequenceId id = 1; id <= 10; ++id) {
      Enqueue(id, 1, 5, 40);
    }
    Run(2, num_ahead);
    Enqueue(11, 0, 80, 5);
    Run(20, num_ahead);
    EXPECT_GT(num_tokens_[11], 0);
    // Those of 5 blocks, until 80 are free and one for each that still runs.
    EXPECT_EQ(preemptions(), 7u);
    Run(80, num_ahead);
    EXPECT_EQ(preemptions(), 7u);
    for (SequenceId id = 1; id <= 10; ++id) {
      EXPECT_EQ(num_tokens_[id], 40) << id;
    }
  }
}

TEST_F(Victims, NobodyMovesOverWhereEqualsHoldTooMuch) {
  for (const size_t num_ahead : {0u, 1u}) {
    SCOPED_TRACE(num_ahead);
    Start(1);
    Enqueue(1, 0, 40, 70);
    Enqueue(2, 1, 10, 200);
    Run(2, num_ahead);
    Enqueue(3, 0, 70, 5);
    Run(10, num_ahead);
    Enqueue(4, 1, 5, 5);
    Run(40, num_ahead);
    EXPECT_EQ(preemptions(), 0u);
    EXPECT_EQ(num_tokens_[2], 52 - static_cast<int64_t>(num_ahead));
    EXPECT_EQ(num_tokens_[4], 5) << "it fits beside the claim, and takes nothing from it";
    EXPECT_EQ(num_tokens_[3], 0);
    Run(40, num_ahead);
    EXPECT_EQ(num_tokens_[3], 5) << "after the one that held too much";
    EXPECT_EQ(preemptions(), 0u);
  }
}

TEST_F(Victims, TheClaimGoesToTheRankWhereRoomCanBeMade) {
  for (const size_t num_ahead : {0u, 1u}) {
    SCOPED_TRACE(num_ahead);
    Start(2);
    Enqueue(1, 0, 50, 300);
    for (SequenceId id = 2; id <= 9; ++id) {
      Enqueue(id, 1, 6, 100);
    }
    Run(18, num_ahead);
    // The better one has more free blocks beside it, but does not leave.
    ASSERT_EQ(scheduler_->progress(1).dp_rank, 0);
    for (SequenceId id = 2; id <= 9; ++id) {
      ASSERT_EQ(scheduler_->progress(id).dp_rank, 1) << id;
    }
    Enqueue(10, 0, 80, 5);
    Run(20, num_ahead);
    EXPECT_GT(num_tokens_[10], 0);
    // Those of 7 blocks, until 80 are free and one for each that still runs.
    EXPECT_EQ(preemptions(), 6u);
    Run(160, num_ahead);
    for (SequenceId id = 2; id <= 9; ++id) {
      EXPECT_EQ(num_tokens_[id], 100) << id;
    }
  }
}

TEST_F(Victims, ASlotIsNotGivenUpForOneWithoutBlocks) {
  Start(1, /*max_num_seqs=*/2);
  Enqueue(1, 0, 40, 100);
  Enqueue(2, 1, 10, 100);
  Run(2);
  Enqueue(3, 0, 70, 5);
  Run(50);
  EXPECT_EQ(preemptions(), 0u);
  Enqueue(4, -1, 5, 5);
  Run(1);
  EXPECT_EQ(num_tokens_[4], 1) << "the best of all has its blocks";
  EXPECT_EQ(preemptions(), 1u);
}

TEST_F(Victims, StepsInFlightOfAVictimCountAsLost) {
  Start(1, /*max_num_seqs=*/1);
  Enqueue(1, 1, 5, 100);  // 66 tokens
  Run(1);
  Plan();
  Enqueue(2, 0, 1, 1);
  Plan();
  Accept();
  Accept();
  ASSERT_EQ(num_tokens_[1], 2);
  ASSERT_EQ(num_tokens_[2], 1);
  Run(2);
  const TierTotals totals = scheduler_->stats().tiers;
  EXPECT_EQ(totals.resumed_tokens, 64u);
  EXPECT_EQ(totals.recomputed_tokens, 3u) << "of its partial block, and of its last step";
}

}  // namespace
}  // namespace tessera::coordinator
