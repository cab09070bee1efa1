#include "worker/runner/draft_requests.h"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>

#include "absl/status/statusor.h"

#include "common/status_macros.h"
#include "proto/step_plan.h"
#include "worker/runner/sequence_slots.h"

namespace tessera::worker {

void DraftRequests::Take(const proto::StepPlan& plan) {
  requests_.clear();
  for (const proto::SlotWork& work : plan.work) {
    SequenceSlot& slot = slots_->slot(work.slot);
    slot.drafts.clear();
    if (work.num_drafts > 0) {
      requests_.push_back({.slot = work.slot,
                           .num_drafts = work.num_drafts,
                           .length = static_cast<int64_t>(slot.tokens.size())});
      slot.tokens.push_back(*slot.sampled);
    }
  }
  std::sort(requests_.begin(), requests_.end(),
            [](const DraftRequest& a, const DraftRequest& b) {
              return a.num_drafts != b.num_drafts ? a.num_drafts > b.num_drafts
                                                  : a.slot < b.slot;
            });
}

absl::StatusOr<int32_t> DraftRequests::Draw(int64_t i, const LogitRows& logits,
                                            int64_t row, Sampler& sampler) {
  SequenceSlot& history = slot(i);
  TESSERA_ASSIGN_OR_RETURN(
      const int32_t token,
      logits.Choose(row, sampler, history.sampling,
                    {.tokens = history.tokens, .prompt_length = history.prompt_length}));
  history.tokens.push_back(token);
  return token;
}

void DraftRequests::Finish() {
  for (const DraftRequest& request : requests_) {
    SequenceSlot& slot = slots_->slot(request.slot);
    const auto drafts = std::span<const int32_t>(slot.tokens)
                            .subspan(static_cast<size_t>(request.length) + 1);
    const auto end = std::find_if_not(drafts.begin(), drafts.end(), [&](int32_t token) {
      return slots_->is_input(token);
    });
    slot.drafts.assign(drafts.begin(), end);
    slot.tokens.resize(static_cast<size_t>(request.length));
  }
}

}  // namespace tessera::worker
