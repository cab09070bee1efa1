// DsparkDrafter: drafts by the model's block drafter (worker/layers/dspark_draft.h): all
// drafts of a sequence from one pass over its stages, then a walk that draws each one as
// the target will draw, by the same sampling parameters and the same random number. Its
// cache holds every committed position because the main pass writes it; nothing is left
// to observe. The stages also say how likely each draft is to stand: where the chance
// that all of them do is too small, a sequence drafts no further.
#ifndef TESSERA_WORKER_RUNNER_DSPARK_DRAFTER_H_
#define TESSERA_WORKER_RUNNER_DSPARK_DRAFTER_H_

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

#include "kernels/tensor_view.h"
#include "model/config/model_config.h"
#include "proto/step_plan.h"
#include "worker/layers/step_context.h"
#include "worker/runner/draft_requests.h"
#include "worker/runner/drafter.h"
#include "worker/runner/dspark_blocks.h"

namespace tessera::worker {

// Step thread only. Allocates at Create only. Where blocks for every slot do not fit a
// step, it runs the stages several times, as often on every rank.
class DsparkDrafter final : public Drafter {
 public:
  // kInvalidArgument: more drafts than a block has, or steps too small for a block;
  // kResourceExhausted: memory.
  static absl::StatusOr<std::unique_ptr<DsparkDrafter>> Create(
      const model::ModelConfig& config, const DrafterOptions& options,
      const DrafterParts& parts);

  absl::Status Propose(const StepContext& context, const proto::StepPlan& plan) override;
  absl::Status Observe(const StepContext& context, std::span<const StepRun> runs,
                       kernels::TensorView streams) override;

 private:
  DsparkDrafter(const DrafterOptions& options, const DrafterParts& parts,
                std::unique_ptr<DsparkBlocks> blocks);
  // Blocks of requests begin.. end - 1, also none.
  absl::Status DraftBlocks(const StepContext& context, int64_t begin, int64_t end);
  // Counts the confidence of the last Step in; whether block `row` still drafts.
  bool IsLikely(int64_t row);

  const DrafterParts parts_;
  const int64_t max_slots_;
  const double min_chance_;
  const std::unique_ptr<DsparkBlocks> blocks_;
  DraftRequests requests_;
  // Of each block of a pass, reserved to their number:
  std::vector<int32_t> previous_;  // the token before the position at hand
  std::vector<double> chances_;    // that all drafts so far stand
};

}  // namespace tessera::worker

#endif  // TESSERA_WORKER_RUNNER_DSPARK_DRAFTER_H_
