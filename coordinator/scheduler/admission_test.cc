#include <memory>
#include <vector>

#include "gtest/gtest.h"

#include "coordinator/scheduler/scheduler.h"
#include "tests/testing/status_matchers.h"

namespace tessera::coordinator {
namespace {

using ::tessera::testing::IsOk;

SchedulerOptions TwoRanks() {
  SchedulerOptions options;
  options.num_dp_ranks = 2;
  options.max_num_seqs = 1;
  options.max_num_batched_tokens = 16;
  options.max_model_len = 64;
  options.block_size = 4;
  options.num_blocks = 32;
  return options;
}

SequenceSpec Prompt(SequenceId id, int32_t first_token, int32_t priority) {
  SequenceSpec spec;
  spec.id = id;
  spec.prompt.assign(9, first_token);
  spec.max_tokens = 4;
  spec.priority = priority;
  spec.sampling.seed = id;
  spec.deadline = absl::InfiniteFuture();
  return spec;
}

// The seeds of the sequences that a step admits, by rank.
std::vector<std::vector<uint64_t>> Admitted(const PlannedStep& step) {
  std::vector<std::vector<uint64_t>> seeds;
  for (const proto::StepPlan& plan : step.plans) {
    seeds.emplace_back();
    for (const proto::SlotAdmission& admission : plan.admissions) {
      seeds.back().push_back(admission.sampling.seed);
    }
  }
  return seeds;
}

TEST(Admission, TheBestPrioritiesGetTheSlotsOnARankEach) {
  auto scheduler = *Scheduler::Create(TwoRanks());
  scheduler->StartEpoch(1);
  ASSERT_THAT(scheduler->Enqueue(Prompt(1, 10, /*priority=*/5)), IsOk());
  ASSERT_THAT(scheduler->Enqueue(Prompt(2, 20, /*priority=*/0)), IsOk());
  ASSERT_THAT(scheduler->Enqueue(Prompt(3, 30, /*priority=*/1)), IsOk());
  const PlannedStep step = scheduler->Plan(absl::UnixEpoch());
  EXPECT_EQ(Admitted(step), (std::vector<std::vector<uint64_t>>{{2}, {3}}));
  EXPECT_EQ(scheduler->progress(1).dp_rank, -1);
  EXPECT_THAT(scheduler->CheckInvariants(), IsOk());
}

TEST(Admission, WhoseDeadlineHasPassedIsNotAdmitted) {
  auto scheduler = *Scheduler::Create(TwoRanks());
  scheduler->StartEpoch(1);
  SequenceSpec late = Prompt(1, 10, 0);
  late.deadline = absl::UnixEpoch();
  ASSERT_THAT(scheduler->Enqueue(late), IsOk());
  ASSERT_THAT(scheduler->Enqueue(Prompt(2, 20, 0)), IsOk());
  const PlannedStep step = scheduler->Plan(absl::UnixEpoch());
  EXPECT_EQ(Admitted(step), (std::vector<std::vector<uint64_t>>{{2}, {}}));
}

}  // namespace
}  // namespace tessera::coordinator
