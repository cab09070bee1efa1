#include "worker/layers/decoder.h"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

#include "common/status.h"
#include "common/status_macros.h"
#include "kernels/kernel_backend.h"
#include "kernels/tensor_view.h"
#include "model/config/model_config.h"
#include "worker/layers/hyper_connections.h"
#include "worker/layers/hyper_hand_off.h"
#include "worker/layers/plain_residual.h"
#include "worker/layers/scratch_arena.h"

namespace tessera::worker {

using kernels::KSplit;
using kernels::TensorView;

namespace {

absl::StatusOr<std::unique_ptr<Residual>> MakeResidual(const model::ModelConfig& config) {
  switch (config.residual) {
    case model::ResidualKind::kPlain:
      return std::make_unique<PlainResidual>(config);
    case model::ResidualKind::kHyperConnections:
      return std::make_unique<HyperConnections>(config);
    case model::ResidualKind::kHyperHandOff:
      if (config.draft != model::DraftKind::kNone &&
          config.draft != model::DraftKind::kDspark) {
        return absl::UnimplementedError("no MTP layer behind single-pass mHC");
      }
      return std::make_unique<HyperHandOff>(config);
  }
  return absl::UnimplementedError("no layer for this residual");
}

}  // namespace

Decoder::Decoder(const model::ModelConfig& config, ModelWeights weights)
    : config_(config), weights_(std::move(weights)) {
  if (config_.attention == model::AttentionKind::kCompressed) {
    selection_ = std::make_unique<EntrySelection>(config_);
  }
}

absl::StatusOr<std::unique_ptr<Decoder>> Decoder::Create(
    const model::ModelConfig& config, const DecoderOptions& options, ModelWeights weights,
    const ModelCaches& caches, const DecoderExchanges& exchanges) {
  std::unique_ptr<Decoder> decoder(new Decoder(config, std::move(weights)));
  TESSERA_ASSIGN_OR_RETURN(decoder->residual_, MakeResidual(config));
  TESSERA_RETURN_IF_ERROR(decoder->BuildLayers(options, caches, exchanges));
  decoder->scratch_bytes_ = decoder->MeasureScratch(options.max_tokens);
  return decoder;
}

absl::Status Decoder::BuildLayers(const DecoderOptions& options,
                                  const ModelCaches& caches,
                                  const DecoderExchanges& exchanges) {
  LayerParts parts = {.config = &config_,
                      .tp_rank = options.tp_rank,
                      .tp_size = options.tp_size,
                      .caches = &caches,
                      .selection = selection_.get(),
                      .exchange = exchanges.layers};
  int64_t index = 0;
  for (const LayerWeights& weights : weights_.layers) {
    TESSERA_ASSIGN_OR_RETURN(DecoderLayer layer,
                             DecoderLayer::Create(parts, index++, weights));
    layers_.push_back(std::move(layer));
  }
  parts.exchange = exchanges.drafts;
  for (const DraftWeights& weights : weights_.drafts) {
    TESSERA_ASSIGN_OR_RETURN(DecoderLayer layer,
                             DecoderLayer::Create(parts, index++, weights.layer));
    drafts_.push_back(std::move(layer));
  }
  if (weights_.dspark.has_value()) {
    TESSERA_ASSIGN_OR_RETURN(dspark_,
                             DsparkDraft::Create(parts, weights_, residual_.get()));
  }
  return absl::OkStatus();
}

size_t Decoder::MeasureScratch(int64_t max_tokens) const {
  const int64_t d = config_.hidden_size;
  size_t inner = 0;
  for (const auto* layers : {&layers_, &drafts_}) {
    for (const DecoderLayer& layer : *layers) {
      inner = std::max(inner, layer.scratch_bytes(max_tokens));
    }
  }
  if (selection_ != nullptr) {
    inner += selection_->scratch_bytes(max_tokens);
  }
  if (dspark_ != nullptr) {
    // Its taps lie beside the layers.
    inner += dspark_->scratch_bytes(max_tokens);
  }
  // Outside of the layers: embedding, or the draft's join of 2d values per stream with
  // its input and output.
  const int64_t streams = residual_->num_streams();
  const size_t outside =
      ScratchArena::Bytes(kernels::DType::kF64, max_tokens * d * (4 * streams + 2)) +
      8 * ScratchArena::kAlignment;
  return outside + residual_->scratch_bytes(max_tokens) + inner;
}

absl::Status Decoder::Forward(const StepContext& context, EngramRows* rows,
                              TensorView streams) {
  ScratchArena::Scope scope(context.scratch);
  const TensorView x =
      context.scratch->Take(context.dtype(), {context.num_tokens, config_.hidden_size});
  context.backend->Embedding(*context.stream, weights_.embedding, context.token_ids, x);
  residual_->Begin(context, x, streams);
  if (selection_ != nullptr) {
    selection_->Begin(context);
  }
  if (dspark_ != nullptr) {
    dspark_->BeginTaps(context);
  }
  for (size_t i = 0; i < layers_.size(); ++i) {
    const auto layer = static_cast<int64_t>(i);
    if (dspark_ != nullptr) {
      dspark_->TapEntering(context, layer, streams);
    }
    TESSERA_RETURN_IF_ERROR(layers_[i].Run(context, *residual_, rows, streams));
    if (dspark_ != nullptr) {
      dspark_->TapLeaving(context, layer, streams);
    }
    // A single stream is traced as what it is, a vector per token.
    context.Trace("hidden", layer,
                  residual_->num_streams() == 1
                      ? streams.Reshape({context.num_tokens, config_.hidden_size})
                      : streams);
  }
  residual_->End(context, streams);
  if (dspark_ != nullptr) {
    dspark_->StoreContext(context);
  }
  return absl::OkStatus();
}

void Decoder::CollapseAndProject(const StepContext& context, const HyperWeights& hyper,
                                 const WeightView& norm, TensorView streams,
                                 TensorView logits) {
  ScratchArena::Scope scope(context.scratch);
  TensorView x =
      context.scratch->Take(context.dtype(), {streams.dim(0), config_.hidden_size});
  residual_->Collapse(context, hyper, streams, x);
  context.backend->RmsNorm(*context.stream, x, norm, config_.rms_norm_eps, x);
  context.backend->Linear(*context.stream, x, weights_.head, KSplit::Whole(), logits);
}

void Decoder::Head(const StepContext& context, TensorView streams, TensorView logits) {
  CollapseAndProject(context, weights_.head_hyper, weights_.final_norm, streams, logits);
}

void Decoder::BeginDrafts(const StepContext& context, TensorView streams) {
  if (config_.draft == model::DraftKind::kMtpNormed) {
    context.backend->RmsNorm(*context.stream, streams, weights_.final_norm,
                             config_.rms_norm_eps, streams);
  }
}

void Decoder::JoinDraftInput(const StepContext& context, const DraftWeights& weights,
                             TensorView next_ids, TensorView streams) {
  ScratchArena::Scope scope(context.scratch);
  auto& ops = *context.backend;
  auto& stream = *context.stream;
  const int64_t tokens = context.num_tokens;
  const int64_t count = residual_->num_streams();
  const int64_t d = config_.hidden_size;
  const TensorView embedded = context.scratch->Take(context.dtype(), {tokens, d});
  ops.Embedding(stream, weights_.embedding, next_ids, embedded);
  ops.RmsNorm(stream, embedded, weights.embedding_norm, config_.rms_norm_eps, embedded);
  const TensorView out = streams.Reshape({tokens * count, d});
  if (config_.draft == model::DraftKind::kMtpStreamsSplit) {
    // z_j = e_proj(embedding) + h_proj(normed stream j).
    const TensorView projected = context.scratch->Take(context.dtype(), {tokens, d});
    const TensorView normed = context.scratch->Take(context.dtype(), {tokens, count, d});
    ops.Linear(stream, embedded, weights.e_proj, KSplit::Whole(), projected);
    ops.RmsNorm(stream, streams, weights.hidden_norm, config_.rms_norm_eps, normed);
    ops.Linear(stream, normed.Reshape({tokens * count, d}), weights.h_proj,
               KSplit::Whole(), out);
    ops.ExpandStreams(stream, projected, normed);
    ops.Add(stream, normed, streams);
    return;
  }
  // joined[t, j] = [embedding | normed stream j]; one weight serves all streams.
  const TensorView joined =
      context.scratch->Take(context.dtype(), {tokens, count, 2 * d});
  ops.ExpandStreams(stream, embedded, joined.Slice(2, 0, d));
  ops.RmsNorm(stream, streams, weights.hidden_norm, config_.rms_norm_eps,
              joined.Slice(2, d, d));
  ops.Linear(stream, joined.Reshape({tokens * count, 2 * d}), weights.join,
             KSplit::Whole(), out);
}

absl::Status Decoder::ForwardDraft(const StepContext& context, int64_t depth,
                                   TensorView next_ids, TensorView streams) {
  const DraftWeights& weights = weights_.drafts[static_cast<size_t>(depth)];
  JoinDraftInput(context, weights, next_ids, streams);
  TESSERA_RETURN_IF_ERROR(
      drafts_[static_cast<size_t>(depth)].Run(context, *residual_, nullptr, streams));
  if (config_.draft == model::DraftKind::kMtpNormed) {
    context.backend->RmsNorm(*context.stream, streams, weights.head_norm,
                             config_.rms_norm_eps, streams);
  }
  return absl::OkStatus();
}

void Decoder::DraftHead(const StepContext& context, int64_t depth, TensorView streams,
                        TensorView logits) {
  if (config_.draft == model::DraftKind::kMtpNormed) {
    // The norm is behind it.
    context.backend->Linear(*context.stream,
                            streams.Reshape({streams.dim(0), config_.hidden_size}),
                            weights_.head, KSplit::Whole(), logits);
    return;
  }
  const DraftWeights& weights = weights_.drafts[static_cast<size_t>(depth)];
  CollapseAndProject(context, weights.head_hyper, weights.head_norm, streams, logits);
}

}  // namespace tessera::worker
