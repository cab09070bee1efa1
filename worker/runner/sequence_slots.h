// SequenceSlots: what a worker keeps of each live sequence: its tokens, block tables and
// sampling parameters. Applies the deltas of StepPlans and checks each fact of them,
// since a plan comes from another process.
#ifndef TESSERA_WORKER_RUNNER_SEQUENCE_SLOTS_H_
#define TESSERA_WORKER_RUNNER_SEQUENCE_SLOTS_H_

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

#include "proto/step_plan.h"

namespace tessera::worker {

struct SlotLimits {
  int64_t num_slots = 0;
  int64_t max_model_len = 0;
  int64_t num_blocks = 0;
  int64_t num_tail_blocks = 0;  // 0: the model keeps none
  int64_t tail_tokens = 0;      // a token sees tail rows of so many before it
  int64_t block_size = 0;
  int64_t num_token_ids = 0;  // ids must be smaller
  int64_t vocab_size = 0;
  int64_t max_drafts = 0;  // of one work item
};

// What one work item came to: the tokens at positions begin .. begin + count of a slot,
// of which the last num_drafts are drafts.
struct StepRun {
  uint32_t slot = 0;
  int64_t begin = 0;
  int64_t count = 0;
  int64_t num_drafts = 0;
  bool sample = false;
  int32_t next_token = -1;  // of the plan

  // Rows whose logits are needed: the last known token and each draft.
  int64_t num_head_rows() const { return sample ? 1 + num_drafts : 0; }
};

struct SequenceSlot {
  bool active = false;
  std::vector<int32_t>
      tokens;  // computed so far, and in this step; reserved to max_model_len
  int64_t prompt_length = 0;
  std::optional<int32_t> sampled;  // after `tokens`, by the last work
  std::vector<int32_t> drafts;     // after `sampled`; for the next work alone
  std::vector<uint32_t> blocks;    // reserved to the blocks of max_model_len
  // The tail block table, reserved likewise: -1 before the first block that came with the
  // admission. Blocks that the tokens have left behind stay named and may serve others.
  std::vector<int32_t> tail;
  proto::SamplingParams sampling;
  // Of this step's late input, which outlives the sampling; empty: every token.
  std::span<const uint32_t> mask;
  uint64_t named_by = 0;  // the last plan with work for it, by the runner's count
};

// Step thread only. Only admissions with stop ids or biases allocate.
class SequenceSlots {
 public:
  explicit SequenceSlots(const SlotLimits& limits);

  // Releases, admissions and appends of `plan`, in this order. kInvalidArgument: a slot,
  // token or block out of range, or a tail table that begins after what the next token
  // sees; kFailedPrecondition: a slot that is not free, or not live.
  absl::Status Apply(const proto::StepPlan& plan);

  // Gives the slots of masked work their masks, which are views of `late`.
  // kInvalidArgument: it is not the masks of exactly the masked work of `plan`, each with
  // all bits or empty.
  absl::Status TakeMasks(const proto::StepPlan& plan, const proto::LateInput& late);

  // Forgets the masks of `plan`.
  void DropMasks(const proto::StepPlan& plan);

  // Whether `work` can be done. kInvalidArgument as above, or more tokens than blocks or
  // tail blocks, a sample inside the prompt, drafts where nothing was sampled before
  // or will be, or a mask without a sample or with drafts;
  // kFailedPrecondition: from_sample without a sampled token.
  absl::Status CheckWork(const proto::SlotWork& work) const;

  // Appends the tokens of one work item to its slot, and as many of its drafts as the
  // work allows and there are; the other drafts are forgotten. Errors as CheckWork.
  absl::StatusOr<StepRun> Advance(const proto::SlotWork& work);

  // Forgets every sequence: a new epoch.
  void Clear();

  // A live slot.
  SequenceSlot& slot(uint32_t index) { return slots_[index]; }
  // Whether the model can take `token` as an input.
  bool is_input(int32_t token) const {
    return token >= 0 && token < limits_.num_token_ids;
  }
  const SlotLimits& limits() const { return limits_; }

 private:
  absl::Status CheckLive(uint32_t index) const;
  absl::Status CheckToken(int32_t token) const;
  absl::Status CheckSampling(const proto::SamplingParams& params) const;
  absl::Status CheckDrafts(const proto::SlotWork& work) const;
  absl::Status Admit(const proto::SlotAdmission& admission);
  absl::Status AppendBlocks(SequenceSlot& slot,
                            const std::vector<uint32_t>& blocks) const;
  absl::Status BeginTail(SequenceSlot& slot, const proto::SlotAdmission& admission) const;
  absl::Status AppendTail(SequenceSlot& slot, const std::vector<uint32_t>& blocks) const;
  // Tokens that the slot's tables have room for.
  int64_t Capacity(const SequenceSlot& slot) const;

  const SlotLimits limits_;
  const int64_t max_blocks_;
  std::vector<SequenceSlot> slots_;
};

}  // namespace tessera::worker

#endif  // TESSERA_WORKER_RUNNER_SEQUENCE_SLOTS_H_
