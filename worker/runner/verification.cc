#include "worker/runner/verification.h"

#include <cstddef>
#include <cstdint>
#include <span>
#include <utility>
#include <vector>

#include "absl/status/status.h"

#include "common/status_macros.h"
#include "proto/step_plan.h"

namespace tessera::worker {
namespace {

// Samples for one run, whose head rows begin at `row`; the number of drafts that stood.
absl::StatusOr<int64_t> SampleRun(const StepRun& run, int64_t row, SequenceSlot& slot,
                                  SampleFunction sample,
                                  std::vector<proto::SampledToken>& sampled) {
  const auto known = static_cast<size_t>(run.begin + run.count - run.num_drafts);
  for (int64_t accepted = 0;; ++accepted) {
    const size_t length = known + static_cast<size_t>(accepted);
    const SamplingHistory history{std::span<const int32_t>(slot.tokens).first(length),
                                  slot.prompt_length, slot.mask};
    TESSERA_ASSIGN_OR_RETURN(proto::SampledToken token,
                             sample(row + accepted, slot, history));
    token.slot = run.slot;
    const int32_t id = token.token;
    sampled.push_back(std::move(token));
    if (accepted < run.num_drafts && slot.tokens[length] == id) {
      continue;
    }
    slot.tokens.resize(length);
    slot.sampled = id;
    return accepted;
  }
}

}  // namespace

absl::Status SampleRuns(std::span<const StepRun> runs, SequenceSlots& slots,
                        SampleFunction sample, std::vector<proto::SampledToken>& sampled,
                        proto::StepCounters& counters) {
  int64_t row = 0;
  for (const StepRun& run : runs) {
    if (!run.sample) {
      continue;
    }
    TESSERA_ASSIGN_OR_RETURN(const int64_t accepted,
                             SampleRun(run, row, slots.slot(run.slot), sample, sampled));
    row += run.num_head_rows();
    counters.num_drafts += run.num_drafts > 0 ? 1 : 0;
    counters.num_draft_tokens += static_cast<uint32_t>(run.num_drafts);
    for (int64_t i = 0; i < accepted; ++i) {
      ++counters.accepted_drafts[static_cast<size_t>(i)];
    }
  }
  return absl::OkStatus();
}

}  // namespace tessera::worker
