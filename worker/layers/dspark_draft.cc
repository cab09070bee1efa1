#include "worker/layers/dspark_draft.h"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

#include "common/check.h"
#include "common/status_macros.h"
#include "kernels/kernel_backend.h"
#include "kernels/tensor_view.h"
#include "model/config/model_config.h"
#include "worker/layers/scratch_arena.h"

namespace tessera::worker {

using kernels::DType;
using kernels::KSplit;
using kernels::TensorView;

namespace {

// Stream `j` of [T, M, d] as rows [T, d], M d values apart.
TensorView StreamOf(TensorView streams, int64_t j) {
  const TensorView slice = streams.Slice(1, j, 1);
  TensorView rows(slice.data, slice.dtype, {slice.dim(0), slice.dim(2)});
  rows.strides[0] = slice.stride(0);
  return rows;
}

}  // namespace

TensorView RowOfBlocks(TensorView x, int64_t block_size, int64_t at) {
  TESSERA_CHECK(at < block_size && x.dim(0) % block_size == 0);
  const TensorView first = x.Slice(0, x.dim(0) > 0 ? at : 0, x.dim(0) > 0 ? 1 : 0);
  TensorView rows(first.data, x.dtype, {x.dim(0) / block_size, x.dim(1)});
  rows.strides[0] = block_size * x.stride(0);
  return rows;
}

DsparkDraft::DsparkDraft(const model::ModelConfig& config, const ModelWeights& model,
                         Residual* residual)
    : dspark_(*config.dspark),
      hidden_(config.hidden_size),
      norm_eps_(config.rms_norm_eps),
      embedding_(model.embedding),
      head_(model.head),
      weights_(*model.dspark),
      residual_(residual) {}

absl::StatusOr<std::unique_ptr<DsparkDraft>> DsparkDraft::Create(
    const LayerParts& parts, const ModelWeights& model, Residual* residual) {
  std::unique_ptr<DsparkDraft> draft(new DsparkDraft(*parts.config, model, residual));
  int64_t index = parts.config->num_layers;
  for (const LayerWeights& weights : model.dspark->stages) {
    TESSERA_ASSIGN_OR_RETURN(DecoderLayer stage,
                             DecoderLayer::Create(parts, index++, weights));
    draft->stages_.push_back(std::move(stage));
  }
  return draft;
}

size_t DsparkDraft::scratch_bytes(int64_t max_tokens) const {
  const int64_t targets = static_cast<int64_t>(dspark_.targets.size());
  size_t stage = 0;
  for (const DecoderLayer& layer : stages_) {
    stage = std::max(stage, layer.scratch_bytes(max_tokens));
  }
  // Taps with their projection; a block's embedding and streams; the head's input; the
  // walk's embedding beside its input and its term of the logits.
  const int64_t values = (targets + residual_->num_streams() + 3) * hidden_ +
                         dspark_.markov_rank + weights_.markov_head.rows;
  return stage + ScratchArena::Bytes(DType::kF64, max_tokens * values) +
         8 * ScratchArena::kAlignment;
}

void DsparkDraft::BeginTaps(const StepContext& context) {
  const auto targets = static_cast<int64_t>(dspark_.targets.size());
  taps_ = context.scratch->Take(context.dtype(), {context.num_tokens, targets * hidden_});
}

void DsparkDraft::TapEntering(const StepContext& context, int64_t layer,
                              TensorView streams) {
  if (dspark_.taps_inputs) {
    Tap(context, layer, streams);
  }
}

void DsparkDraft::TapLeaving(const StepContext& context, int64_t layer,
                             TensorView streams) {
  if (!dspark_.taps_inputs) {
    Tap(context, layer, streams);
  }
}

void DsparkDraft::Tap(const StepContext& context, int64_t layer, TensorView streams) {
  const auto it = std::find(dspark_.targets.begin(), dspark_.targets.end(), layer);
  if (it == dspark_.targets.end()) {
    return;
  }
  const TensorView mean =
      taps_.Slice(1, (it - dspark_.targets.begin()) * hidden_, hidden_);
  const int64_t count = streams.dim(1);
  context.backend->Copy(*context.stream, StreamOf(streams, 0), mean);
  for (int64_t j = 1; j < count; ++j) {
    context.backend->Add(*context.stream, StreamOf(streams, j), mean);
  }
  context.backend->Scale(*context.stream, mean, 1.0 / static_cast<double>(count));
}

void DsparkDraft::StoreContext(const StepContext& context) {
  TESSERA_CHECK(taps_.rank == 2 && taps_.dim(0) == context.num_tokens);
  ScratchArena::Scope scope(context.scratch);
  const TensorView x =
      context.scratch->Take(context.dtype(), {context.num_tokens, hidden_});
  context.backend->Linear(*context.stream, taps_, weights_.main_proj, KSplit::Whole(), x);
  context.backend->RmsNorm(*context.stream, x, weights_.main_norm, norm_eps_, x);
  for (const DecoderLayer& stage : stages_) {
    stage.StoreKeys(context, x);
  }
  taps_ = TensorView();
}

absl::Status DsparkDraft::ForwardBlock(const StepContext& context, TensorView x) {
  ScratchArena::Scope scope(context.scratch);
  const int64_t tokens = context.num_tokens;
  const TensorView streams =
      context.scratch->Take(context.dtype(), {tokens, residual_->num_streams(), hidden_});
  context.backend->Embedding(*context.stream, embedding_, context.token_ids, x);
  residual_->Begin(context, x, streams);
  for (DecoderLayer& stage : stages_) {
    TESSERA_RETURN_IF_ERROR(stage.Run(context, *residual_, nullptr, streams));
  }
  residual_->End(context, streams);
  residual_->Collapse(context, weights_.head_hyper, streams, x);
  return absl::OkStatus();
}

void DsparkDraft::Head(const StepContext& context, TensorView x, TensorView logits) {
  ScratchArena::Scope scope(context.scratch);
  const TensorView normed = context.scratch->Take(context.dtype(), {x.dim(0), hidden_});
  context.backend->RmsNorm(*context.stream, x, weights_.norm, norm_eps_, normed);
  context.backend->Linear(*context.stream, normed, head_, KSplit::Whole(), logits);
}

void DsparkDraft::Walk(const StepContext& context, TensorView x, int64_t at,
                       TensorView previous, TensorView logits, TensorView confidence) {
  ScratchArena::Scope scope(context.scratch);
  auto& ops = *context.backend;
  auto& stream = *context.stream;
  const int64_t count = previous.dim(0);
  const int64_t rank = dspark_.markov_rank;
  // [collapsed row | embedding of the token before]: what the confidence is made of.
  const TensorView joined =
      context.scratch->Take(context.dtype(), {count, hidden_ + rank});
  const TensorView embedded = joined.Slice(1, hidden_, rank);
  ops.Copy(stream, RowOfBlocks(x, dspark_.block_size, at), joined.Slice(1, 0, hidden_));
  ops.Embedding(stream, weights_.markov_embedding, previous, embedded);
  ops.Linear(stream, joined, weights_.confidence, KSplit::Whole(), confidence);
  const TensorView term =
      context.scratch->Take(context.dtype(), {count, weights_.markov_head.rows});
  ops.Linear(stream, embedded, weights_.markov_head, KSplit::Whole(), term);
  ops.Add(stream, term, logits);
}

}  // namespace tessera::worker
