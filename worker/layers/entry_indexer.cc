#include "worker/layers/entry_indexer.h"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <optional>

#include "common/check.h"
#include "kernels/kernel_backend.h"
#include "kernels/tensor_view.h"
#include "model/config/model_config.h"
#include "worker/layers/scratch_arena.h"
#include "worker/layers/step_context.h"

namespace tessera::worker {

using kernels::DType;
using kernels::KSplit;
using kernels::RopePairing;
using kernels::TensorView;

namespace {

std::optional<Compressor> MakeCompressor(const model::ModelConfig& config, int64_t ratio,
                                         const EntryIndexerWeights& weights,
                                         const EntryIndexer::Caches& caches) {
  if (!weights.compressor.has_value()) {
    return std::nullopt;
  }
  return Compressor({.ratio = ratio,
                     .overlaps = ratio == config.compressed.overlapping_ratio,
                     .norm_eps = config.rms_norm_eps},
                    *weights.compressor, caches.values, caches.gates);
}

}  // namespace

EntrySelection::EntrySelection(const model::ModelConfig& config)
    : topk_(config.indexer.topk),
      num_candidates_(config.compressed.candidate_source < 0
                          ? 0
                          : config.compressed.candidate_blocks) {}

void EntrySelection::Begin(const StepContext& context) {
  const int64_t tokens = context.num_tokens;
  entries_ = context.scratch->Take(DType::kI32, {tokens, topk_});
  counts_ = context.scratch->Take(DType::kI32, {tokens});
  if (num_candidates_ > 0) {
    candidates_ = context.scratch->Take(DType::kI32, {tokens, num_candidates_});
  }
}

size_t EntrySelection::scratch_bytes(int64_t max_tokens) const {
  return ScratchArena::Bytes(DType::kI32, max_tokens * (topk_ + 1 + num_candidates_)) +
         3 * ScratchArena::kAlignment;
}

EntryIndexer::EntryIndexer(const model::ModelConfig& config, int64_t layer,
                           const EntryIndexerWeights& weights, const Caches& caches,
                           EntrySelection* selection)
    : config_(config.indexer),
      queries_(config, layer),
      rope_dim_(config.compressed.rope_dim),
      ratio_(config.compressed.ratios[static_cast<size_t>(layer)]),
      norm_eps_(config.rms_norm_eps),
      candidate_block_size_(config.compressed.candidate_source < 0
                                ? 0
                                : config.compressed.candidate_block_size),
      names_candidates_(layer == config.compressed.candidate_source),
      obeys_candidates_(config.compressed.candidate_source >= 0 &&
                        layer > config.compressed.candidate_source),
      inv_freq_(model::RopeInverseFrequencies(config.compressed_rope, rope_dim_)),
      weights_(weights),
      caches_(caches),
      compressor_(MakeCompressor(config, ratio_, weights, caches)),
      selection_(selection) {
  TESSERA_CHECK(config_.rotates_tail && config_.quant_group > 0);
}

int64_t EntryIndexer::scratch_per_token() const {
  const int64_t keys =
      config_.head_dim + (compressor_.has_value() ? compressor_->scratch_per_token() : 0);
  return std::max(keys, config_.num_heads * (config_.head_dim + 1));
}

void EntryIndexer::FinishVectors(const StepContext& context, TensorView x,
                                 TensorView positions) const {
  auto& ops = *context.backend;
  ops.Rope(*context.stream, x.Slice(2, config_.head_dim - rope_dim_, rope_dim_),
           positions, inv_freq_, RopePairing::kInterleaved);
  if (config_.applies_hadamard) {
    ops.Hadamard(*context.stream, x);
  }
  ops.FakeQuantizeFp4(*context.stream, x.SplitLast(config_.quant_group),
                      kernels::Fp4Scale::kE8M0);
}

void EntryIndexer::StoreKeys(const StepContext& context,
                             const StepContext::Entries& entries, TensorView x,
                             TensorView latent) const {
  if (!compressor_.has_value() && !weights_.k.has_value()) {
    return;
  }
  auto& ops = *context.backend;
  auto& stream = *context.stream;
  ScratchArena::Scope scope(context.scratch);
  const TensorView key =
      context.scratch->Take(context.dtype(), {context.num_tokens, config_.head_dim});
  if (compressor_.has_value()) {
    compressor_->Compress(context, x, key);
  } else {
    ops.Linear(stream, latent, *weights_.k, KSplit::Whole(), key);
    ops.RmsNorm(stream, key, *weights_.k_norm, norm_eps_, key);
  }
  FinishVectors(context, key.SplitLast(config_.head_dim), entries.positions);
  ops.StorePaged(stream, key, entries.slots, caches_.keys);
}

void EntryIndexer::Select(const StepContext& context, const StepContext::Entries& entries,
                          TensorView x, TensorView q_low) const {
  const int64_t tokens = context.num_tokens;
  const int64_t heads = config_.num_heads;
  const int64_t dim = config_.head_dim;
  auto& ops = *context.backend;
  auto& stream = *context.stream;
  ScratchArena::Scope scope(context.scratch);
  kernels::IndexerSelectArgs args = {
      .q = {},
      .weights = {},
      .keys = caches_.keys,
      .index = entries.index,
      .ratio = ratio_,
      .topk = config_.topk,
      .selected = selection_->entries(),
      .num_selected = selection_->counts(),
      .candidate_block =
          names_candidates_ || obeys_candidates_ ? candidate_block_size_ : 0,
      .candidates = obeys_candidates_ ? selection_->candidates() : TensorView(),
      .candidates_out = names_candidates_ ? selection_->candidates() : TensorView()};
  if (!queries_.AreMade(context.most_visible)) {
    ops.IndexerSelect(stream, args);
    return;
  }

  const TensorView flat = context.scratch->Take(context.dtype(), {tokens, heads * dim});
  ops.Linear(stream, q_low, weights_.q, KSplit::Whole(), flat);
  const TensorView q = flat.SplitLast(dim);
  FinishVectors(context, q, context.paged.positions);
  const TensorView head_weights = context.scratch->Take(context.dtype(), {tokens, heads});
  ops.Linear(stream, x, weights_.head_weights, KSplit::Whole(), head_weights);
  ops.Scale(
      stream, head_weights,
      1.0 / std::sqrt(static_cast<double>(heads)) / std::sqrt(static_cast<double>(dim)));
  args.q = q;
  args.weights = head_weights;
  ops.IndexerSelect(stream, args);
}

}  // namespace tessera::worker
