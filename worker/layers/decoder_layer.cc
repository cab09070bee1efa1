#include "worker/layers/decoder_layer.h"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <utility>
#include <variant>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

#include "common/check.h"
#include "common/status_macros.h"
#include "kernels/kernel_backend.h"
#include "kernels/tensor_view.h"
#include "model/config/model_config.h"
#include "worker/layers/compressed_attention.h"
#include "worker/layers/dense_mlp.h"
#include "worker/layers/mla_attention.h"
#include "worker/layers/moe.h"
#include "worker/layers/scratch_arena.h"

namespace tessera::worker {

using kernels::TensorView;

namespace {

absl::StatusOr<std::unique_ptr<Attention>> MakeAttention(const LayerParts& parts,
                                                         int64_t index,
                                                         const LayerWeights& weights) {
  const LayerCaches& caches = (*parts.caches)[static_cast<size_t>(index)];
  switch (parts.config->attention) {
    case model::AttentionKind::kMla:
    case model::AttentionKind::kMlaDsa:
      return std::make_unique<MlaAttention>(
          *parts.config, index, parts.tp_size, std::get<MlaWeights>(weights.attention),
          MlaCache{.rows = caches[CacheRole::kLatent],
                   .index_key = caches[CacheRole::kIndexKey]});
    case model::AttentionKind::kCompressed:
      return std::make_unique<CompressedAttention>(
          *parts.config,
          CompressedAttention::Options{
              .layer = index, .tp_rank = parts.tp_rank, .tp_size = parts.tp_size},
          std::get<CompressedAttentionWeights>(weights.attention), *parts.caches,
          parts.selection);
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

absl::StatusOr<DecoderLayer> DecoderLayer::Create(const LayerParts& parts, int64_t index,
                                                  const LayerWeights& weights) {
  DecoderLayer layer;
  layer.weights_ = &weights;
  layer.hidden_ = parts.config->hidden_size;
  layer.norm_eps_ = parts.config->rms_norm_eps;
  TESSERA_ASSIGN_OR_RETURN(layer.attention_, MakeAttention(parts, index, weights));
  if (weights.dense.has_value()) {
    layer.feed_forward_ = std::make_unique<DenseMlp>(*weights.dense, 0);
  } else {
    TESSERA_CHECK(weights.moe.has_value() && parts.exchange != nullptr);
    layer.feed_forward_ =
        std::make_unique<Moe>(*parts.config, index, *weights.moe, parts.exchange);
  }
  if (weights.engram.has_value()) {
    layer.engram_ = std::make_unique<EngramLayer>(
        *parts.config, EngramIndex(*parts.config->engram, index), index, *weights.engram,
        (*parts.caches)[static_cast<size_t>(index)][CacheRole::kEngramConv].rows);
  }
  return layer;
}

size_t DecoderLayer::scratch_bytes(int64_t max_tokens) const {
  const size_t sublayer = std::max(attention_->scratch_bytes(max_tokens),
                                   feed_forward_->scratch_bytes(max_tokens));
  const size_t normed = ScratchArena::Bytes(kernels::DType::kF64, max_tokens * hidden_);
  return std::max(normed + sublayer,
                  engram_ == nullptr ? 0 : engram_->scratch_bytes(max_tokens));
}

absl::Status DecoderLayer::Run(const StepContext& context, Residual& residual,
                               EngramRows* rows, TensorView streams) {
  if (engram_ != nullptr) {
    TESSERA_CHECK(rows != nullptr);
    TESSERA_RETURN_IF_ERROR(engram_->Forward(context, *rows, streams));
  }
  const auto normed = [&](const WeightView& norm, TensorView x) {
    const TensorView out =
        context.scratch->Take(context.dtype(), {context.num_tokens, hidden_});
    context.backend->RmsNorm(*context.stream, x, norm, norm_eps_, out);
    return out;
  };
  TESSERA_RETURN_IF_ERROR(residual.Around(
      context, weights_->attention_hyper, streams, [&](TensorView x, TensorView out) {
        if (context.num_tokens == 0) {
          return absl::OkStatus();
        }
        return attention_->Forward(context, normed(weights_->input_norm, x), out);
      }));
  return residual.Around(context, weights_->ffn_hyper, streams,
                         [&](TensorView x, TensorView out) {
                           return feed_forward_->Forward(
                               context, normed(weights_->post_attention_norm, x), out);
                         });
}

}  // namespace tessera::worker
