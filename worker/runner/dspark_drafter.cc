#include "worker/runner/dspark_drafter.h"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

#include "common/status.h"
#include "common/status_macros.h"
#include "kernels/tensor_view.h"
#include "model/config/model_config.h"
#include "proto/step_plan.h"
#include "worker/layers/decoder.h"
#include "worker/runner/sequence_slots.h"

namespace tessera::worker {

using kernels::DType;
using kernels::TensorView;

DsparkDrafter::DsparkDrafter(const DrafterOptions& options, const DrafterParts& parts,
                             std::unique_ptr<DsparkBlocks> blocks)
    : parts_(parts),
      max_slots_(options.inputs.max_sequences),
      min_chance_(options.min_chance),
      blocks_(std::move(blocks)),
      requests_(parts.slots, options.inputs.max_sequences) {
  previous_.reserve(static_cast<size_t>(blocks_->capacity()));
  chances_.reserve(static_cast<size_t>(blocks_->capacity()));
}

absl::StatusOr<std::unique_ptr<DsparkDrafter>> DsparkDrafter::Create(
    const model::ModelConfig& config, const DrafterOptions& options,
    const DrafterParts& parts) {
  DsparkDraft* const draft = parts.decoder->dspark();
  if (options.num_drafts > draft->block_size()) {
    return InvalidArgumentF("{} drafts a step, the model's blocks have {}",
                            options.num_drafts, draft->block_size());
  }
  TESSERA_ASSIGN_OR_RETURN(
      std::unique_ptr<DsparkBlocks> blocks,
      DsparkBlocks::Create(options.inputs,
                           {.backend = parts.backend,
                            .draft = draft,
                            .logits = parts.logits,
                            .hidden_size = config.hidden_size,
                            .vocab_shard = parts.decoder->vocab_shard()}));
  return std::unique_ptr<DsparkDrafter>(
      new DsparkDrafter(options, parts, std::move(blocks)));
}

absl::Status DsparkDrafter::DraftBlocks(const StepContext& context, int64_t begin,
                                        int64_t end) {
  blocks_->Begin();
  previous_.clear();
  for (int64_t i = begin; i < end; ++i) {
    const DraftRequest& request = requests_[i];
    const SequenceSlot& slot = requests_.slot(i);
    blocks_->Add(*slot.sampled, request.length, request.num_drafts + 1,
                 {.blocks = slot.blocks, .tail = slot.tail});
    previous_.push_back(*slot.sampled);
  }
  TESSERA_RETURN_IF_ERROR(blocks_->Run(context));
  chances_.assign(previous_.size(), 1.0);
  // Requests with most drafts come first. Without any no rank of the TP group walks.
  const int64_t num_drafts = begin < end ? requests_[begin].num_drafts : 0;
  for (int64_t at = 0; at < num_drafts; ++at) {
    TESSERA_RETURN_IF_ERROR(blocks_->Step(context, at, previous_));
    for (int64_t i = begin; i < end && requests_[i].num_drafts > at; ++i) {
      if (!IsLikely(i - begin)) {
        continue;
      }
      TESSERA_ASSIGN_OR_RETURN(
          const int32_t token,
          requests_.Draw(i, *parts_.logits, i - begin, *parts_.sampler));
      previous_[static_cast<size_t>(i - begin)] = token;
    }
  }
  return absl::OkStatus();
}

bool DsparkDrafter::IsLikely(int64_t row) {
  const TensorView confidence = blocks_->confidence();
  const double logit = confidence.dtype == DType::kF64
                           ? confidence.row<double>(0)[row]
                           : static_cast<double>(confidence.row<float>(0)[row]);
  double& chance = chances_[static_cast<size_t>(row)];
  chance /= 1 + std::exp(-logit);
  // Falls from draft to draft, and is no number, and no reason to go on, if one was not.
  return chance >= min_chance_;
}

absl::Status DsparkDrafter::Propose(const StepContext& context,
                                    const proto::StepPlan& plan) {
  requests_.Take(plan);
  for (int64_t begin = 0; begin < max_slots_; begin += blocks_->capacity()) {
    const int64_t end = begin + blocks_->capacity();
    TESSERA_RETURN_IF_ERROR(DraftBlocks(context, std::min(begin, requests_.size()),
                                        std::min(end, requests_.size())));
  }
  requests_.Finish();
  return absl::OkStatus();
}

absl::Status DsparkDrafter::Observe(const StepContext&, std::span<const StepRun>,
                                    kernels::TensorView) {
  return absl::OkStatus();
}

}  // namespace tessera::worker
