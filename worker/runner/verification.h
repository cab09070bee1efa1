// Verification: samples what a step computed. After the last known token of a sequence,
// and after each of its drafts as long as these are what was sampled: the tokens are then
// those of decoding one at a time, whatever the drafts and whatever the sampler, since a
// draw depends on the tokens before it and on their number alone.
#ifndef TESSERA_WORKER_RUNNER_VERIFICATION_H_
#define TESSERA_WORKER_RUNNER_VERIFICATION_H_

#include <cstdint>
#include <span>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"

#include "proto/step_plan.h"
#include "worker/runner/sampler.h"
#include "worker/runner/sequence_slots.h"

namespace tessera::worker {

// The token after `history` of `slot`, from head row `row`: those of a step count through
// its runs.
using SampleFunction = absl::FunctionRef<absl::StatusOr<proto::SampledToken>(
    int64_t row, const SequenceSlot& slot, const SamplingHistory& history)>;

// Samples for `runs`, cuts refused drafts off their slots' tokens and keeps the token
// after them as the slot's sample. `sampled` (out) gets every token, its slot filled in,
// in the order of the runs; `counters` what became of the drafts. Errors are those of
// `sample`; the slots are then half done.
absl::Status SampleRuns(std::span<const StepRun> runs, SequenceSlots& slots,
                        SampleFunction sample, std::vector<proto::SampledToken>& sampled,
                        proto::StepCounters& counters);

}  // namespace tessera::worker

#endif  // TESSERA_WORKER_RUNNER_VERIFICATION_H_
