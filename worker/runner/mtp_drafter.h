// MtpDrafter: drafts by the model's multi-token-prediction layer. The layer at position i
// takes the streams of position i and the token at i + 1, and predicts the one at i + 2
// (DeepSeek-V3 report, section 2.2; model.md 5.5, 6.8, 14.4). Its cache therefore holds
// every committed position, written by Observe; its guess of the first draft is ready
// when a token was sampled. Further drafts feed the layer's own output back, one position
// and one token at a time. A draft is drawn as the target will draw, by the same sampling
// parameters and the same random number: where the two distributions agree, so do the
// tokens, seeded sampling included.
//
// The last position of a prefix hit keeps the entry of whoever computed it, who may have
// gone on with another token: a guess may be worse for it, a token never.
#ifndef TESSERA_WORKER_RUNNER_MTP_DRAFTER_H_
#define TESSERA_WORKER_RUNNER_MTP_DRAFTER_H_

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

#include "kernels/runtime/device_buffer.h"
#include "kernels/tensor_view.h"
#include "model/config/model_config.h"
#include "proto/step_plan.h"
#include "worker/layers/step_context.h"
#include "worker/runner/draft_requests.h"
#include "worker/runner/drafter.h"
#include "worker/runner/sequence_slots.h"
#include "worker/runner/step_inputs.h"

namespace tessera::worker {

// Step thread only. Allocates at Create only. Runs draft layer 0, num_drafts times a
// step.
class MtpDrafter final : public Drafter {
 public:
  // kResourceExhausted: memory.
  static absl::StatusOr<std::unique_ptr<MtpDrafter>> Create(
      const model::ModelConfig& config, const DrafterOptions& options,
      const DrafterParts& parts);

  absl::Status Propose(const StepContext& context, const proto::StepPlan& plan) override;
  absl::Status Observe(const StepContext& context, std::span<const StepRun> runs,
                       kernels::TensorView streams) override;

 private:
  MtpDrafter(const model::ModelConfig& config, const DrafterOptions& options,
             const DrafterParts& parts);
  absl::Status Allocate();

  // Runs the layer once more, for the first `count` requests and their newest token.
  absl::Status FeedBack(const StepContext& context, int64_t depth, int64_t count);
  // Appends a draft to the tokens of the first `count` requests.
  absl::Status DrawDrafts(const StepContext& context, int64_t count);
  // Adds the committed positions of `run`, the first of whose rows is `row`.
  void AddCommitted(const StepRun& run, int64_t row);
  // Keeps the streams of each sampled slot's last position.
  void KeepStreams(const StepContext& context);

  // `context` with inputs_ for its tokens.
  StepContext DraftContext(const StepContext& context) const;
  kernels::TensorView Streams(int64_t rows) const;
  // Copies `indices` to the device.
  kernels::TensorView UploadIndices(const StepContext& context,
                                    std::span<const int32_t> indices);

  const model::ModelConfig config_;
  const DrafterOptions options_;
  const DrafterParts parts_;
  StepInputs inputs_;
  DraftRequests requests_;
  std::vector<int32_t> next_ids_;       // of one run; reserved to max_tokens
  std::vector<int32_t> rows_;           // of the step that are committed
  std::vector<int32_t> sampled_slots_;  // whose streams are kept
  kernels::DeviceBuffer streams_;       // [max_tokens, M, d]
  kernels::DeviceBuffer last_streams_;  // [max_slots, M, d]
  kernels::DeviceBuffer slot_streams_;  // [max_slots, M, d], by slot
  kernels::DeviceBuffer indices_;       // [max_tokens] i32
};

}  // namespace tessera::worker

#endif  // TESSERA_WORKER_RUNNER_MTP_DRAFTER_H_
