// A steady decode step allocates nothing: counted by replacing the global allocation
// functions of this binary, on one rank of the demo model with the cpu backend.
#include <atomic>
#include <barrier>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <new>
#include <thread>
#include <vector>

#include "cli/loaded_model.h"
#include "cli/ranks/rank_assembly.h"
#include "gtest/gtest.h"

#include "common/clock.h"
#include "proto/step_plan.h"
#include "tests/integration/step_plans.h"
#include "worker/layers/cache_layout.h"

namespace {

std::atomic<int64_t> allocations{0};

void* CountedAllocation(size_t size) {
  allocations.fetch_add(1, std::memory_order_relaxed);
  void* memory = std::malloc(size == 0 ? 1 : size);
  if (memory == nullptr) {
    std::abort();
  }
  return memory;
}

}  // namespace

void* operator new(size_t size) { return CountedAllocation(size); }
void* operator new[](size_t size) { return CountedAllocation(size); }
// The library's call the two above; a sanitizer's do not.
void* operator new(size_t size, const std::nothrow_t&) noexcept {
  return CountedAllocation(size);
}
void* operator new[](size_t size, const std::nothrow_t&) noexcept {
  return CountedAllocation(size);
}
void operator delete(void* memory) noexcept { std::free(memory); }
void operator delete[](void* memory) noexcept { std::free(memory); }
void operator delete(void* memory, size_t) noexcept { std::free(memory); }
void operator delete[](void* memory, size_t) noexcept { std::free(memory); }

namespace tessera {
namespace {

constexpr uint32_t kSequences = 8;

proto::StepPlan Prefill(bool keeps_tail) {
  return testing::PrefillPlan(kSequences, keeps_tail, /*greedy=*/false);
}

proto::StepPlan Decode(uint64_t step, uint32_t num_drafts) {
  return testing::DecodePlan(step, kSequences, num_drafts);
}

// Of several decode steps with `num_drafts` drafts of every sequence.
void ExpectOneAllocationPerStep(const char* folder, uint32_t num_drafts,
                                worker::KvCacheDtype kv_cache_dtype) {
  const auto model = cli::LoadModel(folder);
  ASSERT_TRUE(model.ok()) << model.status();
  const auto engram = cli::ResidentEngram(**model, Clock::Real());
  ASSERT_TRUE(engram.ok()) << engram.status();
  cli::RankOptions options;
  options.num_threads = 2;
  const bool keeps_tail = (*model)->config.tail_tokens() > 0;
  options.runner.block_size = (*model)->config.default_block_size();
  options.runner.num_blocks = 64;
  options.runner.kv_cache_dtype = kv_cache_dtype;
  options.runner.num_tail_blocks = keeps_tail ? options.runner.num_blocks : 0;
  options.runner.num_speculative_tokens = num_drafts;
  options.runner.min_draft_chance = 0;  // All of them are made.
  auto ranks = cli::AssembleLocalGroup(**model, {}, options, *engram, Clock::Real());
  ASSERT_TRUE(ranks.ok()) << ranks.status();
  worker::ModelRunner& runner = *ranks->front().runner;
  ASSERT_TRUE(runner.Execute(Prefill(keeps_tail)).ok());
  ASSERT_TRUE(runner.Execute(Decode(2, num_drafts)).ok());
  for (uint64_t step = 3; step < 8; ++step) {
    const proto::StepPlan plan = Decode(step, num_drafts);
    const int64_t before = allocations.load();
    const auto result = runner.Execute(plan);
    const int64_t during = allocations.load() - before;
    ASSERT_TRUE(result.ok()) << result.status();
    ASSERT_GE(result->sampled.size(), kSequences);
    // The vector of sampled tokens is the caller's; it is reserved in one piece.
    EXPECT_LE(during, 1) << "step " << step;
    EXPECT_EQ(result->counters.num_draft_tokens, num_drafts * kSequences);
  }
  // The counts of routed items are counted in place; a report is one vector more.
  proto::StepPlan plan = Decode(8, num_drafts);
  plan.reports_expert_counts = true;
  const int64_t before = allocations.load();
  const auto result = runner.Execute(plan);
  EXPECT_LE(allocations.load() - before, 2);
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_FALSE(result->expert_counts.empty());
}

// What a plan with transfers moves goes through buffers made at the start.
TEST(TransferStepAllocation, AStepThatHandsBlocksOverAllocatesNothingMore) {
  const auto model = cli::LoadModel("tests/data/v4");
  ASSERT_TRUE(model.ok()) << model.status();
  const auto engram = cli::ResidentEngram(**model, Clock::Real());
  ASSERT_TRUE(engram.ok()) << engram.status();
  cli::RankOptions options;
  options.runner.block_size = (*model)->config.default_block_size();
  options.runner.num_blocks = options.runner.num_tail_blocks = 64;
  options.runner.num_host_blocks = options.runner.num_host_tail_blocks = 4;
  options.runner.max_transfers = 2;
  auto ranks = cli::AssembleLocalGroup(**model, {.tp = 1, .dp = 2}, options, *engram,
                                       Clock::Real());
  ASSERT_TRUE(ranks.ok()) << ranks.status();
  constexpr uint64_t kLast = 6;
  std::barrier<> together(2);
  std::vector<int64_t> during;
  // Rank 0 sends; rank 1, without sequences, receives and restores.
  const auto run = [&](size_t rank) {
    for (uint64_t step = 1; step <= kLast; ++step) {
      proto::StepPlan plan =
          rank == 0 && step == 1 ? Prefill(/*keeps_tail=*/true) : Decode(step, 0);
      if (rank == 1) {
        plan.work.clear();
      }
      plan.transfers = step > 1;
      if (plan.transfers && rank == 0) {
        plan.sends = {{0, 1, false, step * 2}, {0, 1, true, step * 2 + 1}};
      } else if (plan.transfers) {
        plan.receives = {{3, 0, false, step * 2}, {2, 0, true, step * 2 + 1}};
        plan.restores = {{5, 3, false}, {6, 2, true}};
      }
      together.arrive_and_wait();
      const int64_t before = allocations.load();
      together.arrive_and_wait();
      const auto result = (*ranks)[rank].runner->Execute(plan);
      together.arrive_and_wait();
      const int64_t count = allocations.load() - before;
      together.arrive_and_wait();
      if (rank == 0) {
        during.push_back(count);
        EXPECT_EQ(result.ok() && result->counters.transfer_bytes > 0, step > 1);
      }
      EXPECT_TRUE(result.ok()) << result.status();
    }
  };
  std::thread other([&] { run(1); });
  run(0);
  other.join();
  for (size_t step = 3; step <= kLast; ++step) {
    // The result of the rank that samples.
    EXPECT_LE(during[step - 1], 1) << "step " << step;
  }
}

// Masks come in what the caller made.
TEST(MaskedStepAllocation, AMaskedDecodeStepAllocatesItsResultAlone) {
  const auto model = cli::LoadModel("tests/data/v4");
  ASSERT_TRUE(model.ok()) << model.status();
  const auto engram = cli::ResidentEngram(**model, Clock::Real());
  ASSERT_TRUE(engram.ok()) << engram.status();
  cli::RankOptions options;
  options.num_threads = 2;
  options.runner.block_size = (*model)->config.default_block_size();
  options.runner.num_blocks = 64;
  options.runner.num_tail_blocks = 64;
  auto ranks = cli::AssembleLocalGroup(**model, {}, options, *engram, Clock::Real());
  ASSERT_TRUE(ranks.ok()) << ranks.status();
  worker::ModelRunner& runner = *ranks->front().runner;
  ASSERT_TRUE(runner.Execute(Prefill(/*keeps_tail=*/true)).ok());
  const auto num_words = static_cast<size_t>((*model)->config.vocab_size + 31) / 32;
  for (uint64_t step = 2; step < 6; ++step) {
    proto::StepPlan plan = Decode(step, 0);
    proto::LateInput late = {.epoch = 1, .step = step, .masks = {}};
    for (proto::SlotWork& work : plan.work) {
      work.masked = true;
      std::vector<uint32_t> words(num_words);
      words[work.slot] = 1u << step;
      late.masks.push_back({.slot = work.slot, .words = std::move(words)});
    }
    const int64_t before = allocations.load();
    const auto result = runner.Execute(
        plan, [&]() -> absl::StatusOr<proto::LateInput> { return std::move(late); });
    const int64_t during = allocations.load() - before;
    ASSERT_TRUE(result.ok()) << result.status();
    EXPECT_LE(during, 1) << "step " << step;
    for (const proto::SampledToken& sampled : result->sampled) {
      EXPECT_EQ(sampled.token, static_cast<int32_t>(sampled.slot * 32 + step));
    }
  }
}

class StepAllocation : public ::testing::TestWithParam<const char*> {};

TEST_P(StepAllocation, ADecodeStepAllocatesItsResultAlone) {
  ExpectOneAllocationPerStep(GetParam(), 0, worker::KvCacheDtype::kActivations);
}

TEST_P(StepAllocation, AStepThatVerifiesAndDraftsAllocatesItsResultAlone) {
  ExpectOneAllocationPerStep(GetParam(), 3, worker::KvCacheDtype::kActivations);
}

TEST_P(StepAllocation, AStepOverPackedRowsAllocatesItsResultAlone) {
  ExpectOneAllocationPerStep(GetParam(), 0, worker::KvCacheDtype::kFp8);
}

INSTANTIATE_TEST_SUITE_P(Models, StepAllocation,
                         ::testing::Values("models/demo", "tests/data/v3",
                                           "tests/data/v32", "tests/data/v4",
                                           "tests/data/v4_0731", "tests/data/v41"));

}  // namespace
}  // namespace tessera
