// PlannedRankStep: what one plan that is not yet accepted asked of a rank, and whether a
// result answers it. The rank is another process: every fact of its result is checked
// before one of them is used.
#ifndef TESSERA_COORDINATOR_SCHEDULER_PLANNED_WORK_H_
#define TESSERA_COORDINATOR_SCHEDULER_PLANNED_WORK_H_

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "absl/status/status.h"

#include "coordinator/scheduler/sequence.h"
#include "proto/step_plan.h"

namespace tessera::coordinator {

// What one unaccepted plan asked of one slot.
struct PlannedWork {
  Sequence* sequence = nullptr;  // null: a probe
  uint32_t slot = 0;
  int64_t num_tokens = 0;  // drafts included
  int64_t num_drafts = 0;
  bool sample = false;
  int64_t last_sample_position = 0;  // in the sequence, if all drafts before it stand
};

struct PlannedRankStep {
  uint64_t step = 0;
  std::vector<PlannedWork> work;
};

using Samples = std::span<const proto::SampledToken>;

// The samples of `result` for `slot`, which stand together; empty if there is none.
// Workers answer in the order of the plan, so `hint`, the number of samples of the works
// before, nearly always finds them.
Samples FindSamples(const proto::StepResult& result, uint32_t slot, size_t hint);

// Takes the scores of `result` for prompt tokens of `work`'s sequence, those that follow
// what it has, until it has generated: a step that computes positions anew scores them
// anew.
void TakePromptScores(const proto::StepResult& result, const PlannedWork& work);

// Whether `result` answers `planned`, in any order of its slots: for each that samples
// one token after another, 1 to 1 + num_drafts of them; of a sequence that still takes
// them from the end of its tokens on; and no others; and scores of tokens of
// the prompts alone. kInternal: it does not.
absl::Status CheckSamples(const PlannedRankStep& planned,
                          const proto::StepResult& result);

}  // namespace tessera::coordinator

#endif  // TESSERA_COORDINATOR_SCHEDULER_PLANNED_WORK_H_
