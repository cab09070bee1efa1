#include "coordinator/scheduler/hand_over.h"

#include <algorithm>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <utility>
#include <vector>

#include "gtest/gtest.h"

#include "coordinator/scheduler/scheduler_options_check.h"
#include "tests/testing/status_matchers.h"
#include "tests/testing/stub_worker.h"

namespace tessera::coordinator {
namespace {

using ::tessera::testing::IsOk;
using ::tessera::testing::StatusIs;
using ::tessera::testing::StubToken;
using ::tessera::testing::StubTransfers;
using ::tessera::testing::StubWorker;

constexpr int32_t kVocabSize = 1000;
constexpr size_t kLong = 30;  // tokens: 7 full blocks before the last one

// Rank 0 prefills for rank 1.
SchedulerOptions RoleOptions() {
  SchedulerOptions options;
  options.num_dp_ranks = 2;
  options.num_prefill_ranks = 1;
  options.prefill_min_tokens = 12;
  options.max_transfers = 100;
  options.max_num_seqs = 4;
  options.max_num_batched_tokens = 16;
  options.max_model_len = 64;
  options.block_size = 4;
  options.num_blocks = 32;
  options.num_host_blocks = 32;
  options.max_waiting = 16;
  return options;
}

SchedulerOptions TailOptions() {
  SchedulerOptions options = RoleOptions();
  options.tail_tokens = 6;
  options.num_tail_blocks = 12;
  options.num_host_tail_blocks = 12;
  return options;
}

std::vector<int32_t> Prompt(int32_t first, size_t count) {
  std::vector<int32_t> prompt(count);
  for (size_t i = 0; i < count; ++i) {
    prompt[i] = (first + static_cast<int32_t>(i)) % kVocabSize;
  }
  return prompt;
}

SequenceSpec MakeSpec(SequenceId id, std::vector<int32_t> prompt,
                      int64_t max_tokens = 5) {
  SequenceSpec spec;
  spec.id = id;
  spec.tenant = "t";
  spec.prompt = std::move(prompt);
  spec.max_tokens = max_tokens;
  spec.sampling.seed = id;
  spec.deadline = absl::InfiniteFuture();
  return spec;
}

// The scheduler, one step ahead of stubs that check every row that they read.
class Group {
 public:
  explicit Group(const SchedulerOptions& options)
      : options_(options), scheduler_(*Scheduler::Create(options)) {
    StartEpoch();
  }

  void StartEpoch() {
    scheduler_->StartEpoch(++epoch_);
    results_.clear();
    workers_.clear();
    for (int64_t i = 0; i < options_.num_dp_ranks; ++i) {
      workers_.emplace_back(testing::StubWorkerOptions{
          .num_blocks = options_.num_blocks,
          .block_size = options_.block_size,
          .max_num_seqs = options_.max_num_seqs,
          .max_num_batched_tokens = options_.max_num_batched_tokens,
          .vocab_size = kVocabSize,
          .num_tail_blocks = options_.num_tail_blocks,
          .tail_tokens = options_.tail_tokens,
          .num_host_blocks = options_.num_host_blocks,
          .num_host_tail_blocks = options_.num_host_tail_blocks,
          .num_speculative_tokens = options_.num_speculative_tokens});
    }
  }

  void Enqueue(const SequenceSpec& spec) {
    ASSERT_THAT(scheduler_->Enqueue(spec), IsOk());
    specs_[spec.id] = spec;
  }

  // One plan, and one answer if two are in flight or nothing can be planned.
  void Tick() {
    if (scheduler_->has_work() && results_.size() < 2) {
      Plan();
    }
    if (results_.size() == 2 || (!results_.empty() && !scheduler_->has_work())) {
      Accept();
    }
    ASSERT_THAT(scheduler_->CheckInvariants(), IsOk());
  }

  // Until nothing is left; then nobody holds anything.
  void Drain() {
    for (int i = 0; i < 1000 && (scheduler_->has_work() || !results_.empty()); ++i) {
      Tick();
    }
    const SchedulerStats stats = scheduler_->stats();
    EXPECT_EQ(stats.num_waiting + stats.num_running, 0);
    EXPECT_EQ(stats.blocks_used + stats.tail_blocks_used, 0);
  }

  // The tokens of a sequence that ended are those of plain decoding.
  void ExpectWhole(SequenceId id) {
    const SequenceSpec& spec = specs_.at(id);
    std::vector<int32_t> history = spec.prompt;
    const std::vector<int32_t>& tokens = generated_[id];
    ASSERT_EQ(std::ssize(tokens), spec.max_tokens) << "sequence " << id;
    for (const int32_t token : tokens) {
      ASSERT_EQ(token, StubToken(history, static_cast<uint32_t>(spec.prompt.size()),
                                 spec.sampling, kVocabSize));
      history.push_back(token);
    }
  }

  Scheduler& scheduler() { return *scheduler_; }
  HandOverTotals hand_overs() const { return scheduler_->stats().hand_overs; }
  int64_t prefilled(size_t rank) { return prefilled_[rank]; }
  int64_t most_transfers() const { return most_transfers_; }

 private:
  void Plan() {
    const PlannedStep step = scheduler_->Plan(absl::UnixEpoch());
    StubTransfers transfers;
    for (size_t i = 0; i < workers_.size(); ++i) {
      ASSERT_THAT(workers_[i].Send(step.plans[i], &transfers), IsOk());
      most_transfers_ = std::max(most_transfers_, std::ssize(step.plans[i].sends));
    }
    std::vector<proto::StepResult> results;
    for (size_t i = 0; i < workers_.size(); ++i) {
      for (const proto::SlotWork& work : step.plans[i].work) {
        prefilled_[i] += std::ssize(work.tokens);
      }
      auto result = workers_[i].Execute(step.plans[i], nullptr, &transfers,
                                        static_cast<uint32_t>(i));
      ASSERT_THAT(result, IsOk());
      results.push_back(*std::move(result));
    }
    EXPECT_TRUE(results.front().sampled.empty()) << "a prefill rank sampled";
    results_.push_back(std::move(results));
  }

  void Accept() {
    auto accepted = scheduler_->Accept(results_.front());
    ASSERT_THAT(accepted, IsOk());
    results_.pop_front();
    for (const AcceptedToken& token : *accepted) {
      generated_[token.sequence].push_back(token.sampled.token);
      if (token.length_reached) {
        scheduler_->Finish(token.sequence);
      }
    }
  }

  const SchedulerOptions options_;
  std::unique_ptr<Scheduler> scheduler_;
  std::vector<StubWorker> workers_;
  std::deque<std::vector<proto::StepResult>> results_;
  std::map<SequenceId, SequenceSpec> specs_;
  std::map<SequenceId, std::vector<int32_t>> generated_;
  std::map<size_t, int64_t> prefilled_;  // known tokens computed, by rank
  int64_t most_transfers_ = 0;
  uint64_t epoch_ = 0;
};

TEST(HandOver, ALongPromptIsComputedByOneRankAndDecodedByAnother) {
  for (const SchedulerOptions& options : {RoleOptions(), TailOptions()}) {
    Group group(options);
    group.Enqueue(MakeSpec(1, Prompt(0, kLong)));
    group.Drain();
    group.ExpectWhole(1);
    EXPECT_EQ(group.prefilled(0), 28);
    EXPECT_EQ(group.prefilled(1), 2);
    EXPECT_EQ(group.hand_overs().sequences, 1u);
    EXPECT_EQ(group.hand_overs().tokens, 28u);
    EXPECT_EQ(group.hand_overs().blocks, options.tail_tokens > 0 ? 7u + 2u : 7u);
    EXPECT_EQ(group.hand_overs().given_up, 0u);
    // What was moved is no hit, and nobody lost it.
    const SchedulerStats stats = group.scheduler().stats();
    EXPECT_EQ(stats.prefix_hit_tokens + stats.tiers.host_hit_tokens, 0u);
    EXPECT_EQ(stats.prefix_query_tokens, kLong);
    EXPECT_EQ(stats.preemptions, 0u);
  }
}

TEST(HandOver, AShortPromptAndOneToBeScoredStayWhereTheyDecode) {
  Group group(RoleOptions());
  group.Enqueue(MakeSpec(1, Prompt(0, 11)));
  SequenceSpec scored = MakeSpec(2, Prompt(500, kLong));
  scored.sampling.num_prompt_logprobs = 0;
  group.Enqueue(scored);
  group.Drain();
  EXPECT_EQ(group.prefilled(0), 0);
  EXPECT_EQ(group.hand_overs().blocks, 0u);
}

TEST(HandOver, ASmallRemainderIsComputedWhereTheRestIs) {
  Group group(RoleOptions());
  group.Enqueue(MakeSpec(1, Prompt(0, kLong)));
  group.Drain();
  group.Enqueue(MakeSpec(2, Prompt(0, kLong + 8)));
  group.Drain();
  group.ExpectWhole(2);
  EXPECT_EQ(group.prefilled(0), 28) << "of the first prompt alone";
}

TEST(HandOver, WhatTheTargetHasIsNotSentAgain) {
  Group group(RoleOptions());
  group.Enqueue(MakeSpec(1, Prompt(0, kLong)));
  group.Drain();
  group.Enqueue(MakeSpec(2, Prompt(0, kLong + 20)));
  group.Drain();
  group.ExpectWhole(2);
  EXPECT_EQ(group.hand_overs().sequences, 2u);
  EXPECT_EQ(group.hand_overs().tokens, 48u) << "the blocks of both, each once";
}

TEST(HandOver, AStepSendsNoMoreThanItMay) {
  SchedulerOptions options = TailOptions();
  options.max_transfers = 2;
  Group group(options);
  for (SequenceId id = 1; id <= 4; ++id) {
    group.Enqueue(MakeSpec(id, Prompt(static_cast<int32_t>(id) * 100, kLong)));
  }
  group.Drain();
  for (SequenceId id = 1; id <= 4; ++id) {
    group.ExpectWhole(id);
  }
  EXPECT_EQ(group.most_transfers(), 2);
  EXPECT_EQ(group.hand_overs().sequences, 4u);
}

TEST(HandOver, MayEndByACancelAtEveryStage) {
  for (const SchedulerOptions& base : {RoleOptions(), TailOptions()}) {
    for (int stage = 0; stage < 14; ++stage) {
      SchedulerOptions options = base;
      options.max_transfers = 3;
      Group group(options);
      group.Enqueue(MakeSpec(1, Prompt(0, 50)));
      group.Enqueue(MakeSpec(2, Prompt(500, 50)));
      for (int i = 0; i < stage; ++i) {
        group.Tick();
      }
      group.scheduler().Finish(1);
      ASSERT_THAT(group.scheduler().CheckInvariants(), IsOk()) << "stage " << stage;
      group.Drain();
      group.ExpectWhole(2);
      // Nothing of it stays pinned.
      group.Enqueue(MakeSpec(3, Prompt(700, 50)));
      group.Drain();
      group.ExpectWhole(3);
    }
  }
}

TEST(HandOver, MayBeLostWithItsGroupAtEveryStage) {
  for (const SchedulerOptions& base : {RoleOptions(), TailOptions()}) {
    for (int stage = 0; stage < 14; ++stage) {
      SchedulerOptions options = base;
      options.max_transfers = 3;
      Group group(options);
      group.Enqueue(MakeSpec(1, Prompt(0, 50), 8));
      for (int i = 0; i < stage; ++i) {
        group.Tick();
      }
      group.StartEpoch();
      group.Drain();
      group.ExpectWhole(1);
    }
  }
}

TEST(HandOver, AFullTargetIsWaitedForAndOneThatIsTooSmallIsNot) {
  SchedulerOptions options = RoleOptions();
  options.num_host_blocks = 8;  // of one prompt at a time
  Group waits(options);
  options.num_host_blocks = 6;  // of none
  Group never(options);
  for (Group* group : {&waits, &never}) {
    for (SequenceId id = 1; id <= 3; ++id) {
      group->Enqueue(MakeSpec(id, Prompt(static_cast<int32_t>(id) * 100, kLong)));
    }
    group->Drain();
    for (SequenceId id = 1; id <= 3; ++id) {
      group->ExpectWhole(id);
    }
  }
  EXPECT_EQ(waits.hand_overs().sequences, 3u);
  EXPECT_EQ(waits.prefilled(0), 3 * 28);
  EXPECT_EQ(never.prefilled(0), 0);
  EXPECT_EQ(never.prefilled(1), 3 * static_cast<int64_t>(kLong));
}

TEST(HandOver, WhatWaitsForASlotIsNotEvictedByTheNextPrompt) {
  SchedulerOptions options = RoleOptions();
  options.max_num_seqs = 1;
  options.num_host_blocks = 10;  // of one prompt
  Group group(options);
  group.Enqueue(MakeSpec(1, Prompt(500, 3), 40));  // takes the slot
  group.Enqueue(MakeSpec(2, Prompt(0, kLong)));
  group.Enqueue(MakeSpec(3, Prompt(100, kLong)));
  for (int i = 0; i < 20; ++i) {
    group.Tick();
  }
  EXPECT_EQ(group.hand_overs().sequences, 1u) << "the other waits for room";
  group.Drain();
  for (SequenceId id = 1; id <= 3; ++id) {
    group.ExpectWhole(id);
  }
  EXPECT_EQ(group.hand_overs().sequences, 2u);
  EXPECT_EQ(group.hand_overs().recomputed_tokens, 0u);
}

TEST(HandOver, WhatWasEvictedBeforeItsSlotCameIsComputedAgain) {
  SchedulerOptions options = RoleOptions();
  options.max_num_seqs = 2;
  options.num_blocks = 17;  // one of 64 tokens, and one
  options.num_host_blocks = 8;
  Group group(options);
  // Two that decode and swap each other out through the host blocks.
  group.Enqueue(MakeSpec(1, Prompt(500, 11), 50));
  group.Enqueue(MakeSpec(2, Prompt(700, 11), 50));
  group.Enqueue(MakeSpec(3, Prompt(0, kLong)));
  group.Drain();
  for (SequenceId id = 1; id <= 3; ++id) {
    group.ExpectWhole(id);
  }
  EXPECT_GT(group.hand_overs().recomputed_tokens, 0u);
}

TEST(HandOver, ShortPromptsPassLongOnesThatWaitForThePrefillRank) {
  SchedulerOptions options = RoleOptions();
  options.max_num_seqs = 1;
  Group group(options);
  for (SequenceId id = 1; id <= 4; ++id) {
    group.Enqueue(MakeSpec(id, Prompt(static_cast<int32_t>(id) * 100, 50)));
  }
  group.Enqueue(MakeSpec(5, Prompt(900, 3), 10));
  for (int i = 0; i < 3; ++i) {
    group.Tick();
  }
  EXPECT_EQ(group.scheduler().progress(5).dp_rank, 1);
  EXPECT_EQ(group.scheduler().progress(1).dp_rank, 0);
  group.Drain();
  group.ExpectWhole(4);
  group.ExpectWhole(5);
}

TEST(HandOver, SpeculationStartsOnTheDecodeRank) {
  SchedulerOptions options = RoleOptions();
  options.num_speculative_tokens = 3;
  Group group(options);
  group.Enqueue(MakeSpec(1, Prompt(0, kLong), 20));
  group.Drain();
  group.ExpectWhole(1);
  EXPECT_EQ(group.hand_overs().sequences, 1u);
}

TEST(HandOver, RolesThatCannotBeAreRefused) {
  EXPECT_THAT(CheckSchedulerOptions(RoleOptions()), IsOk());
  EXPECT_THAT(CheckSchedulerOptions(TailOptions()), IsOk());
  using Change = std::function<void(SchedulerOptions*)>;
  const Change changes[] = {
      [](auto* options) { options->num_prefill_ranks = 2; },
      [](auto* options) { options->num_prefill_ranks = -1; },
      [](auto* options) { options->enable_prefix_caching = false; },
      [](auto* options) { options->num_host_blocks = 0; },
      [](auto* options) { options->num_host_tail_blocks = 0; },
      [](auto* options) { options->max_transfers = 0; },
      [](auto* options) { options->prefill_min_tokens = options->block_size; },
  };
  for (const Change& change : changes) {
    SchedulerOptions options = TailOptions();
    change(&options);
    EXPECT_THAT(CheckSchedulerOptions(options),
                StatusIs(absl::StatusCode::kInvalidArgument))
        << "change " << &change - changes;
  }
}

}  // namespace
}  // namespace tessera::coordinator
