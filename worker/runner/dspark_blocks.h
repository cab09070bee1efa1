// DsparkBlocks: runs the block drafter (worker/layers/dspark_draft.h) for some sequences
// at once: gathers the blocks' inputs, runs the stages, walks the blocks from left to
// right. It does not choose tokens: what walks with it (a drafter, a trace) reads the
// logits of a position and says which token follows.
#ifndef TESSERA_WORKER_RUNNER_DSPARK_BLOCKS_H_
#define TESSERA_WORKER_RUNNER_DSPARK_BLOCKS_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

#include "kernels/kernel_backend.h"
#include "kernels/runtime/device_buffer.h"
#include "kernels/tensor_view.h"
#include "worker/layers/decoder.h"
#include "worker/layers/step_context.h"
#include "worker/runner/logit_rows.h"
#include "worker/runner/step_inputs.h"

namespace tessera::worker {

// Step thread only. Allocates at Create only. A round: Begin, Add for each sequence, Run,
// then for rising positions of the block Base or Step.
class DsparkBlocks {
 public:
  // All must outlive it; `logits` is used by Base and Step.
  struct Parts {
    kernels::KernelBackend* backend = nullptr;
    DsparkDraft* draft = nullptr;
    LogitRows* logits = nullptr;
    int64_t hidden_size = 0;  // d
    int64_t vocab_shard = 0;  // V_local
  };

  // `inputs` are those of a step. kInvalidArgument: a step holds no block;
  // kResourceExhausted: memory.
  static absl::StatusOr<std::unique_ptr<DsparkBlocks>> Create(
      const StepInputs::Options& inputs, const Parts& parts);

  int64_t block_size() const { return parts_.draft->block_size(); }
  // Sequences that one round holds.
  int64_t capacity() const { return capacity_; }

  void Begin();
  // A block at positions begin.. whose first token is `token`, the last one sampled. The
  // sequence holds pages for `num_held` of the block's positions; further ones are
  // computed, but neither kept nor seen.
  void Add(int32_t token, int64_t begin, int64_t num_held,
           const StepInputs::Tables& tables);

  // Runs the stages and the head. Collective over the group, also without blocks.
  // `context` names communicators, scratch and stream; its tokens are not used.
  absl::Status Run(const StepContext& context);

  // Logits of block position `at` of every block into Parts::logits, without what the
  // tokens before make likely. Collective over the TP group; at least one block.
  absl::Status Base(const StepContext& context, int64_t at);
  // The same with it, `previous[i]` being the token before that position of block i.
  absl::Status Step(const StepContext& context, int64_t at,
                    const std::vector<int32_t>& previous);
  // [n] on the host, of the last Step: the logit of each draft's being accepted.
  kernels::TensorView confidence() const;

 private:
  DsparkBlocks(const StepInputs::Options& inputs, const Parts& parts);
  StepContext BlockContext(const StepContext& context) const;
  kernels::TensorView Hidden() const;
  kernels::TensorView Rows() const;
  kernels::TensorView HeadLogits() const;

  const Parts parts_;
  const int64_t capacity_;
  StepInputs inputs_;
  int64_t num_blocks_ = 0;
  std::vector<int32_t> tokens_;              // [B] of one block
  std::vector<std::byte> confidence_;        // [capacity] on the host
  kernels::DeviceBuffer hidden_;             // [capacity B, d]
  kernels::DeviceBuffer head_logits_;        // [capacity B, V_local]
  kernels::DeviceBuffer previous_;           // [capacity] i32
  kernels::DeviceBuffer device_confidence_;  // [capacity]
};

}  // namespace tessera::worker

#endif  // TESSERA_WORKER_RUNNER_DSPARK_BLOCKS_H_
