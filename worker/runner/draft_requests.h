// DraftRequests: the slots that a plan wants drafts of, and the drafts while they are
// made. Between Take and Finish a slot's tokens hold the sampled token and its drafts as
// well, so that a sampler sees the history that the next token will have.
#ifndef TESSERA_WORKER_RUNNER_DRAFT_REQUESTS_H_
#define TESSERA_WORKER_RUNNER_DRAFT_REQUESTS_H_

#include <cstddef>
#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"

#include "proto/step_plan.h"
#include "worker/runner/logit_rows.h"
#include "worker/runner/sampler.h"
#include "worker/runner/sequence_slots.h"

namespace tessera::worker {

struct DraftRequest {
  uint32_t slot = 0;
  int64_t num_drafts = 0;  // at most
  int64_t length = 0;      // of its committed tokens; the sampled one is the next
};

// Step thread only. Allocates at construction only.
class DraftRequests {
 public:
  // `slots` must outlive it.
  DraftRequests(SequenceSlots* slots, int64_t max_slots) : slots_(slots) {
    requests_.reserve(static_cast<size_t>(max_slots));
  }

  // The requests of a plan, those with most drafts first; drafts of before are dropped.
  void Take(const proto::StepPlan& plan);
  // Draws the next draft of request i from row `row` of `logits` as the target will, by
  // the same sampling parameters and the same random number: where the two distributions
  // agree, so do the tokens. kDataLoss as Sampler::Choose.
  absl::StatusOr<int32_t> Draw(int64_t i, const LogitRows& logits, int64_t row,
                               Sampler& sampler);
  // Moves the drafts from behind the tokens to where the step looks for them, up to the
  // first that is no input of the model.
  void Finish();

  int64_t size() const { return static_cast<int64_t>(requests_.size()); }
  const DraftRequest& operator[](int64_t i) const {
    return requests_[static_cast<size_t>(i)];
  }
  SequenceSlot& slot(int64_t i) const { return slots_->slot((*this)[i].slot); }

 private:
  SequenceSlots* const slots_;
  std::vector<DraftRequest> requests_;
};

}  // namespace tessera::worker

#endif  // TESSERA_WORKER_RUNNER_DRAFT_REQUESTS_H_
