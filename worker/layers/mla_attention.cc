#include "worker/layers/mla_attention.h"

#include <cstddef>
#include <cstdint>
#include <optional>

#include "absl/status/status.h"

#include "kernels/kernel_backend.h"
#include "kernels/tensor_view.h"
#include "model/config/model_config.h"
#include "worker/layers/lightning_indexer.h"
#include "worker/layers/scratch_arena.h"
#include "worker/layers/step_context.h"

namespace tessera::worker {

using kernels::DType;
using kernels::KSplit;
using kernels::RopePairing;
using kernels::TensorView;

namespace {

std::optional<LightningIndexer> MakeIndexer(const model::ModelConfig& config,
                                            const MlaWeights& weights,
                                            const MlaCache& cache) {
  if (!weights.indexer.has_value()) {
    return std::nullopt;
  }
  return LightningIndexer(config, *weights.indexer, cache.index_key);
}

}  // namespace

MlaAttention::MlaAttention(const model::ModelConfig& config, int64_t layer, int tp_size,
                           const MlaWeights& weights, const MlaCache& cache)
    : mla_(config.mla),
      norm_eps_(config.rms_norm_eps),
      softmax_scale_(config.softmax_scale()),
      layer_(layer),
      num_heads_(config.mla.num_heads / tp_size),
      inv_freq_(model::RopeInverseFrequencies(config.rope, config.mla.qk_rope_head_dim)),
      weights_(weights),
      cache_(cache),
      indexer_(MakeIndexer(config, weights, cache)) {}

size_t MlaAttention::scratch_bytes(int64_t max_tokens) const {
  const int64_t c = mla_.kv_lora_rank;
  const int64_t per_token =
      mla_.q_lora_rank + num_heads_ * (mla_.qk_nope_head_dim + mla_.qk_rope_head_dim) +
      c + mla_.qk_rope_head_dim + 2 * num_heads_ * c + num_heads_ * mla_.v_head_dim;
  const int64_t selection = indexer_.has_value() ? indexer_->scratch_per_token() : 0;
  // Each tensor is rounded up to the alignment.
  return ScratchArena::Bytes(DType::kF64, max_tokens * (per_token + selection)) +
         (11 + LightningIndexer::kScratchViews) * ScratchArena::kAlignment;
}

void MlaAttention::StoreKeys(const StepContext& context, TensorView x) const {
  const int64_t tokens = context.num_tokens;
  const int64_t c = mla_.kv_lora_rank;
  const int64_t r = mla_.qk_rope_head_dim;
  auto& ops = *context.backend;
  auto& stream = *context.stream;
  ScratchArena::Scope scope(context.scratch);

  TensorView kv = context.scratch->Take(context.dtype(), {tokens, c + r});
  ops.Linear(stream, x, weights_.kv_a, KSplit::Whole(), kv);
  TensorView latent = kv.Slice(1, 0, c);
  ops.RmsNorm(stream, latent, weights_.kv_a_norm, norm_eps_, latent);
  TensorView k_rope = kv.Slice(1, c, r);
  ops.Rope(stream, k_rope.SplitLast(r), context.paged.positions, inv_freq_,
           RopePairing::kInterleaved);
  ops.StorePaged(stream, kv, context.cache_slots, cache_.rows);
  if (indexer_.has_value()) {
    indexer_->StoreKeys(context, x, inv_freq_);
  }
}

MlaAttention::Queries MlaAttention::ProjectQueries(const StepContext& context,
                                                   TensorView q_low) const {
  const int64_t n = mla_.qk_nope_head_dim;
  const int64_t r = mla_.qk_rope_head_dim;
  TensorView q =
      context.scratch->Take(context.dtype(), {context.num_tokens, num_heads_ * (n + r)});
  context.backend->Linear(*context.stream, q_low, weights_.q_b, KSplit::Whole(), q);
  const TensorView heads = q.SplitLast(n + r);
  Queries queries{heads.Slice(2, 0, n), heads.Slice(2, n, r)};
  context.backend->Rope(*context.stream, queries.rope, context.paged.positions, inv_freq_,
                        RopePairing::kInterleaved);
  return queries;
}

absl::Status MlaAttention::Forward(const StepContext& context, TensorView x,
                                   TensorView out) {
  const int64_t tokens = context.num_tokens;
  const int64_t c = mla_.kv_lora_rank;
  const int64_t head_rows = mla_.qk_nope_head_dim + mla_.v_head_dim;
  auto& ops = *context.backend;
  auto& stream = *context.stream;
  ScratchArena::Scope scope(context.scratch);

  TensorView q_low = context.scratch->Take(context.dtype(), {tokens, mla_.q_lora_rank});
  ops.Linear(stream, x, weights_.q_a, KSplit::Whole(), q_low);
  ops.RmsNorm(stream, q_low, weights_.q_a_norm, norm_eps_, q_low);
  StoreKeys(context, x);
  const Queries queries = ProjectQueries(context, q_low);
  LightningIndexer::Selection selection;  // of rank 0: everything visible
  if (indexer_.has_value()) {
    selection = indexer_->Select(context, x, q_low, inv_freq_);
    context.Trace("select", layer_, selection.positions);
  }

  TensorView q_latent = context.scratch->Take(context.dtype(), {tokens, num_heads_, c});
  ops.HeadLinearTransposed(stream, queries.nope, weights_.kv_b, head_rows, 0, q_latent);
  TensorView o_latent = context.scratch->Take(context.dtype(), {tokens, num_heads_, c});
  ops.MlaAttention(stream, {.q_latent = q_latent,
                            .q_rope = queries.rope,
                            .rows = cache_.rows,
                            .index = context.paged,
                            .selected = selection.positions,
                            .num_selected = selection.counts,
                            .scale = softmax_scale_,
                            .out = o_latent});
  TensorView o =
      context.scratch->Take(context.dtype(), {tokens, num_heads_, mla_.v_head_dim});
  ops.HeadLinear(stream, o_latent, weights_.kv_b, head_rows, mla_.qk_nope_head_dim, o);
  ops.Linear(stream, o.Reshape({tokens, num_heads_ * mla_.v_head_dim}), weights_.o.weight,
             weights_.o.split, out);
  return ReduceOverTp(context, out);
}

}  // namespace tessera::worker
