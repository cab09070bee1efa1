#include "worker/layers/decoder.h"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <utility>
#include <variant>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

#include "common/check.h"
#include "common/status.h"
#include "common/status_macros.h"
#include "kernels/kernel_backend.h"
#include "kernels/tensor_view.h"
#include "model/config/model_config.h"
#include "worker/layers/dense_mlp.h"
#include "worker/layers/hyper_connections.h"
#include "worker/layers/mla_attention.h"
#include "worker/layers/moe.h"
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
      break;
  }
  return absl::UnimplementedError("no layer for this residual");
}

absl::StatusOr<std::unique_ptr<Attention>> MakeAttention(const model::ModelConfig& config,
                                                         int64_t index, int tp_size,
                                                         const LayerWeights& weights,
                                                         const DecoderCaches& caches) {
  switch (config.attention) {
    case model::AttentionKind::kMla:
    case model::AttentionKind::kMlaDsa:
      return std::make_unique<MlaAttention>(config, index, tp_size,
                                            std::get<MlaWeights>(weights.attention),
                                            caches.attention[static_cast<size_t>(index)]);
    case model::AttentionKind::kCompressed:
      break;
  }
  return absl::UnimplementedError("no layer for this attention");
}

// Position of `layer` among the engram layers.
int64_t EngramIndex(const model::EngramConfig& engram, int64_t layer) {
  const auto it = std::find(engram.layer_ids.begin(), engram.layer_ids.end(), layer);
  TESSERA_CHECK(it != engram.layer_ids.end());
  return it - engram.layer_ids.begin();
}

}  // namespace

Decoder::Decoder(const model::ModelConfig& config, ModelWeights weights)
    : config_(config), weights_(std::move(weights)) {}

absl::StatusOr<Decoder::Layer> Decoder::BuildLayer(int64_t index,
                                                   const LayerWeights& weights,
                                                   const DecoderOptions& options,
                                                   const DecoderCaches& caches,
                                                   ExpertExchange* exchange) {
  Layer layer;
  layer.weights = &weights;
  TESSERA_ASSIGN_OR_RETURN(
      layer.attention, MakeAttention(config_, index, options.tp_size, weights, caches));
  if (weights.dense.has_value()) {
    layer.feed_forward = std::make_unique<DenseMlp>(*weights.dense, 0);
  } else {
    TESSERA_CHECK(weights.moe.has_value() && exchange != nullptr);
    layer.feed_forward = std::make_unique<Moe>(config_, index, *weights.moe, exchange);
  }
  if (weights.engram.has_value()) {
    const int64_t at = EngramIndex(*config_.engram, index);
    layer.engram = std::make_unique<EngramLayer>(
        config_, at, index, *weights.engram, caches.engram_conv[static_cast<size_t>(at)]);
  }
  return layer;
}

absl::StatusOr<std::unique_ptr<Decoder>> Decoder::Create(const model::ModelConfig& config,
                                                         const DecoderOptions& options,
                                                         ModelWeights weights,
                                                         const DecoderCaches& caches,
                                                         ExpertExchange* exchange) {
  std::unique_ptr<Decoder> decoder(new Decoder(config, std::move(weights)));
  TESSERA_ASSIGN_OR_RETURN(decoder->residual_, MakeResidual(config));
  const ModelWeights& owned = decoder->weights_;
  for (size_t i = 0; i < owned.layers.size(); ++i) {
    TESSERA_ASSIGN_OR_RETURN(Layer layer,
                             decoder->BuildLayer(static_cast<int64_t>(i), owned.layers[i],
                                                 options, caches, exchange));
    decoder->layers_.push_back(std::move(layer));
  }
  for (size_t i = 0; i < owned.drafts.size(); ++i) {
    TESSERA_ASSIGN_OR_RETURN(
        Layer layer,
        decoder->BuildLayer(static_cast<int64_t>(owned.layers.size() + i),
                            owned.drafts[i].layer, options, caches, exchange));
    decoder->drafts_.push_back(std::move(layer));
  }
  decoder->scratch_bytes_ = decoder->MeasureScratch(options.max_tokens);
  return decoder;
}

size_t Decoder::MeasureScratch(int64_t max_tokens) const {
  const int64_t d = config_.hidden_size;
  size_t inner = 0;
  const auto visit = [&](const Layer& layer) {
    inner = std::max({inner, layer.attention->scratch_bytes(max_tokens),
                      layer.feed_forward->scratch_bytes(max_tokens)});
    if (layer.engram != nullptr) {
      inner = std::max(inner, layer.engram->scratch_bytes(max_tokens));
    }
  };
  std::for_each(layers_.begin(), layers_.end(), visit);
  std::for_each(drafts_.begin(), drafts_.end(), visit);
  // Around a sublayer: the residual and its normed input. Outside: embedding, or the
  // draft's join of 2d values per stream with its input and output.
  const int64_t streams = residual_->num_streams();
  const size_t outside =
      ScratchArena::Bytes(kernels::DType::kF64, max_tokens * d * (4 * streams + 2)) +
      8 * ScratchArena::kAlignment;
  return outside + residual_->scratch_bytes(max_tokens) +
         ScratchArena::Bytes(kernels::DType::kF64, max_tokens * d) + inner;
}

absl::Status Decoder::RunLayer(const StepContext& context, const Layer& layer,
                               TensorView streams) {
  const LayerWeights& weights = *layer.weights;
  const auto normed = [&](const WeightView& norm, TensorView x) {
    TensorView out =
        context.scratch->Take(context.dtype(), {context.num_tokens, config_.hidden_size});
    context.backend->RmsNorm(*context.stream, x, norm, config_.rms_norm_eps, out);
    return out;
  };
  TESSERA_RETURN_IF_ERROR(residual_->Around(
      context, weights.attention_hyper, streams, [&](TensorView x, TensorView out) {
        if (context.num_tokens == 0) {
          return absl::OkStatus();
        }
        return layer.attention->Forward(context, normed(weights.input_norm, x), out);
      }));
  return residual_->Around(context, weights.ffn_hyper, streams,
                           [&](TensorView x, TensorView out) {
                             return layer.feed_forward->Forward(
                                 context, normed(weights.post_attention_norm, x), out);
                           });
}

absl::Status Decoder::Forward(const StepContext& context, EngramRows* rows,
                              TensorView streams) {
  {
    ScratchArena::Scope scope(context.scratch);
    TensorView x =
        context.scratch->Take(context.dtype(), {context.num_tokens, config_.hidden_size});
    context.backend->Embedding(*context.stream, weights_.embedding, context.token_ids, x);
    residual_->Begin(context, x, streams);
  }
  for (size_t i = 0; i < layers_.size(); ++i) {
    if (layers_[i].engram != nullptr) {
      TESSERA_CHECK(rows != nullptr);
      TESSERA_RETURN_IF_ERROR(layers_[i].engram->Forward(context, *rows, streams));
    }
    TESSERA_RETURN_IF_ERROR(RunLayer(context, layers_[i], streams));
    // A single stream is traced as what it is, a vector per token.
    context.Trace("hidden", static_cast<int64_t>(i),
                  residual_->num_streams() == 1
                      ? streams.Reshape({context.num_tokens, config_.hidden_size})
                      : streams);
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

absl::Status Decoder::ForwardDraft(const StepContext& context, int64_t depth,
                                   TensorView next_ids, TensorView streams) {
  const DraftWeights& weights = weights_.drafts[static_cast<size_t>(depth)];
  const int64_t tokens = context.num_tokens;
  const int64_t count = residual_->num_streams();
  const int64_t d = config_.hidden_size;
  {
    ScratchArena::Scope scope(context.scratch);
    TensorView embedded = context.scratch->Take(context.dtype(), {tokens, d});
    context.backend->Embedding(*context.stream, weights_.embedding, next_ids, embedded);
    context.backend->RmsNorm(*context.stream, embedded, weights.embedding_norm,
                             config_.rms_norm_eps, embedded);
    // joined[t, j] = [embedding | normed stream j]; one weight serves all streams.
    TensorView joined = context.scratch->Take(context.dtype(), {tokens, count, 2 * d});
    context.backend->ExpandStreams(*context.stream, embedded, joined.Slice(2, 0, d));
    context.backend->RmsNorm(*context.stream, streams, weights.hidden_norm,
                             config_.rms_norm_eps, joined.Slice(2, d, d));
    context.backend->Linear(*context.stream, joined.Reshape({tokens * count, 2 * d}),
                            weights.join, KSplit::Whole(),
                            streams.Reshape({tokens * count, d}));
  }
  TESSERA_RETURN_IF_ERROR(
      RunLayer(context, drafts_[static_cast<size_t>(depth)], streams));
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
