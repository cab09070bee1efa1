#include "worker/layers/lightning_indexer.h"

#include <cmath>
#include <cstdint>
#include <span>

#include "kernels/kernel_backend.h"
#include "kernels/tensor_view.h"
#include "worker/layers/scratch_arena.h"
#include "worker/layers/step_context.h"

namespace tessera::worker {

using kernels::DType;
using kernels::KSplit;
using kernels::RopePairing;
using kernels::TensorView;

// k_norm is a LayerNorm of its own epsilon, not rms_norm_eps (model.md 3.2).
constexpr double kKeyNormEps = 1e-6;

LightningIndexer::LightningIndexer(const model::ModelConfig& config,
                                   const IndexerWeights& weights,
                                   const kernels::CacheView& key_cache)
    : config_(config.indexer),
      queries_(config, /*layer=*/0),
      weights_(weights),
      key_cache_(key_cache) {}

int64_t LightningIndexer::scratch_per_token() const {
  // Indices are counted as activations.
  return config_.head_dim + config_.num_heads * (config_.head_dim + 1) + config_.topk + 1;
}

void LightningIndexer::FinishVectors(const StepContext& context, TensorView x,
                                     std::span<const float> inv_freq) const {
  auto& ops = *context.backend;
  ops.Rope(*context.stream, x, context.paged.positions, inv_freq,
           RopePairing::kHalfSplit);
  ops.Hadamard(*context.stream, x);
  if (config_.quantizes_vectors) {
    ops.FakeQuantizeE4M3(*context.stream, x);
  }
}

void LightningIndexer::StoreKeys(const StepContext& context, TensorView x,
                                 std::span<const float> inv_freq) const {
  auto& ops = *context.backend;
  auto& stream = *context.stream;
  ScratchArena::Scope scope(context.scratch);
  TensorView key =
      context.scratch->Take(context.dtype(), {context.num_tokens, config_.head_dim});
  ops.Linear(stream, x, weights_.k, KSplit::Whole(), key);
  ops.LayerNorm(stream, key, weights_.k_norm_weight, weights_.k_norm_bias, kKeyNormEps,
                key);
  FinishVectors(context, key.SplitLast(config_.head_dim), inv_freq);
  ops.StorePaged(stream, key, context.cache_slots, key_cache_);
}

LightningIndexer::Selection LightningIndexer::Select(
    const StepContext& context, TensorView x, TensorView q_low,
    std::span<const float> inv_freq) const {
  const int64_t tokens = context.num_tokens;
  const int64_t heads = config_.num_heads;
  const int64_t dim = config_.head_dim;
  auto& ops = *context.backend;
  auto& stream = *context.stream;
  Selection selection{context.scratch->Take(DType::kI32, {tokens, config_.topk}),
                      context.scratch->Take(DType::kI32, {tokens})};
  ScratchArena::Scope scope(context.scratch);
  kernels::IndexerSelectArgs args = {.q = {},
                                     .weights = {},
                                     .keys = key_cache_,
                                     .index = context.paged,
                                     .topk = config_.topk,
                                     .selected = selection.positions,
                                     .num_selected = selection.counts};
  if (!queries_.AreMade(context.most_visible)) {
    ops.IndexerSelect(stream, args);
    return selection;
  }

  TensorView q = context.scratch->Take(context.dtype(), {tokens, heads * dim});
  ops.Linear(stream, q_low, weights_.q, KSplit::Whole(), q);
  q = q.SplitLast(dim);
  FinishVectors(context, q, inv_freq);
  TensorView head_weights = context.scratch->Take(context.dtype(), {tokens, heads});
  ops.Linear(stream, x, weights_.head_weights, KSplit::Whole(), head_weights);
  ops.Scale(
      stream, head_weights,
      1.0 / std::sqrt(static_cast<double>(heads)) / std::sqrt(static_cast<double>(dim)));
  args.q = q;
  args.weights = head_weights;
  ops.IndexerSelect(stream, args);
  return selection;
}

}  // namespace tessera::worker
