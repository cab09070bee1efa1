// Drafter: guesses the tokens that follow a sampled one, for the next step to verify
// (verification.h). A guess can be wrong and costs a computed position then; it can never
// change a token. A drafter lives on a rank beside the Decoder whose draft layers it
// runs, and keeps their state of each slot. It schedules nothing: the plan says how many
// drafts it wants, and a drafter may have fewer.
//
// A step: Propose -> forward pass over known tokens and drafts -> SampleRuns -> Observe.
// The implementations: mtp_drafter.h, dspark_drafter.h.
#ifndef TESSERA_WORKER_RUNNER_DRAFTER_H_
#define TESSERA_WORKER_RUNNER_DRAFTER_H_

#include <cstdint>
#include <memory>
#include <span>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

#include "kernels/kernel_backend.h"
#include "kernels/tensor_view.h"
#include "model/config/model_config.h"
#include "proto/step_plan.h"
#include "worker/layers/decoder.h"
#include "worker/layers/step_context.h"
#include "worker/runner/logit_rows.h"
#include "worker/runner/sampler.h"
#include "worker/runner/sequence_slots.h"
#include "worker/runner/step_inputs.h"

namespace tessera::worker {

// Step thread only. Both calls are collective over the group: every rank makes them once
// in every step, also in one without work for it, and a drafter runs as many collectives
// for no tokens as for some. They allocate nothing. Errors are those of the collectives,
// and kDataLoss for a logit that is not finite.
class Drafter {
 public:
  virtual ~Drafter() = default;

  // Fills SequenceSlot::drafts of the slots that `plan` wants drafts of; the plan's work
  // has passed SequenceSlots::CheckWork and is not yet applied. Each slot gets num_drafts
  // at most, all of them inputs of the model. It may write cache entries of the draft
  // layers at the positions that the plan reserves.
  virtual absl::Status Propose(const StepContext& context,
                               const proto::StepPlan& plan) = 0;

  // Takes in what the step computed and kept: `streams` [T, M, d] as they left the last
  // layer, rows of `runs` one after the other; a slot's tokens end where they were
  // accepted. `streams` may be used as scratch.
  virtual absl::Status Observe(const StepContext& context, std::span<const StepRun> runs,
                               kernels::TensorView streams) = 0;
};

// What a drafter works with. All must outlive it; `logits` and `sampler` are shared with
// the step that it drafts for and are free between its calls.
struct DrafterParts {
  kernels::KernelBackend* backend = nullptr;
  Decoder* decoder = nullptr;
  SequenceSlots* slots = nullptr;
  LogitRows* logits = nullptr;
  Sampler* sampler = nullptr;
};

struct DrafterOptions {
  int64_t num_drafts = 0;  // at most, per sequence and step
  // Drafters that know how likely their drafts are to stand stop where the chance that
  // all of a sequence's do falls below this: a refused one costs a row of the next step.
  double min_chance = 0;
  StepInputs::Options inputs;  // of a step of the target
};

// The drafter of the config's draft kind. kInvalidArgument: the model has none, or
// num_drafts is out of range; kResourceExhausted: memory.
absl::StatusOr<std::unique_ptr<Drafter>> CreateDrafter(const model::ModelConfig& config,
                                                       const DrafterOptions& options,
                                                       const DrafterParts& parts);

}  // namespace tessera::worker

#endif  // TESSERA_WORKER_RUNNER_DRAFTER_H_
