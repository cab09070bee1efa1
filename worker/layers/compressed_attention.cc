#include "worker/layers/compressed_attention.h"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

#include "common/check.h"
#include "common/status_macros.h"
#include "kernels/kernel_backend.h"
#include "kernels/tensor_view.h"
#include "model/config/model_config.h"
#include "model/formats/dtype.h"
#include "worker/layers/scratch_arena.h"
#include "worker/layers/step_context.h"

namespace tessera::worker {

using kernels::DType;
using kernels::KSplit;
using kernels::RopePairing;
using kernels::TensorView;

namespace {

// The last `count` values of x's last dimension.
TensorView Tail(TensorView x, int64_t count) {
  return x.Slice(x.rank - 1, x.dim(x.rank - 1) - count, count);
}

// The layer whose entry of `sources` a layer uses; -1 for draft layers, which have none.
int64_t SourceOf(const std::vector<int64_t>& sources, int64_t layer) {
  return layer < static_cast<int64_t>(sources.size())
             ? sources[static_cast<size_t>(layer)]
             : -1;
}

// The caches of the layer whose entries `layer` reads; of none, views of rank 0.
LayerCaches EntryCaches(const model::CompressedAttentionConfig& config, int64_t layer,
                        const ModelCaches& caches) {
  const int64_t source = SourceOf(config.kv_sources, layer);
  return source < 0 ? LayerCaches() : caches[static_cast<size_t>(source)];
}

std::optional<Compressor> MakeCompressor(const model::ModelConfig& config, int64_t ratio,
                                         const CompressedAttentionWeights& weights,
                                         const LayerCaches& caches) {
  if (!weights.compressor.has_value()) {
    return std::nullopt;
  }
  return Compressor({.ratio = ratio,
                     .overlaps = ratio == config.compressed.overlapping_ratio,
                     .norm_eps = config.rms_norm_eps},
                    *weights.compressor, caches[CacheRole::kEntryValue].rows,
                    caches[CacheRole::kEntryGate].rows);
}

std::optional<EntryIndexer> MakeIndexer(const model::ModelConfig& config, int64_t layer,
                                        const CompressedAttentionWeights& weights,
                                        const LayerCaches& caches,
                                        EntrySelection* selection) {
  if (!weights.indexer.has_value()) {
    return std::nullopt;
  }
  return EntryIndexer(config, layer, *weights.indexer,
                      {.keys = caches[CacheRole::kIndexKey],
                       .values = caches[CacheRole::kIndexValue].rows,
                       .gates = caches[CacheRole::kIndexGate].rows},
                      selection);
}

std::vector<float> Negated(std::vector<float> values) {
  for (float& value : values) {
    value = -value;
  }
  return values;
}

}  // namespace

CompressedAttention::CompressedAttention(const model::ModelConfig& config,
                                         const Options& options,
                                         const CompressedAttentionWeights& weights,
                                         const ModelCaches& caches,
                                         EntrySelection* selection)
    : config_(config.compressed),
      options_(options),
      norm_eps_(config.rms_norm_eps),
      softmax_scale_(config.softmax_scale()),
      ratio_(config_.ratios[static_cast<size_t>(options.layer)]),
      selects_(SourceOf(config_.index_sources, options.layer) >= 0),
      num_heads_(config_.num_heads / options.tp_size),
      inv_freq_(model::RopeInverseFrequencies(
          ratio_ > 0 ? config.compressed_rope : config.rope, config_.rope_dim)),
      inverse_freq_(Negated(inv_freq_)),
      weights_(weights),
      window_(caches[static_cast<size_t>(options.layer)][CacheRole::kWindow]),
      entries_(EntryCaches(config_, options.layer, caches)[CacheRole::kEntry]),
      compressor_(MakeCompressor(config, ratio_, weights,
                                 EntryCaches(config_, options.layer, caches))),
      indexer_(MakeIndexer(config, options.layer, weights,
                           EntryCaches(config_, options.layer, caches), selection)),
      selection_(selection),
      gather_counts_(static_cast<size_t>(options.tp_size)) {
  TESSERA_CHECK(ratio_ == 0 || entries_.is_present());
  TESSERA_CHECK(!selects_ || selection_ != nullptr);
}

size_t CompressedAttention::scratch_bytes(int64_t max_tokens) const {
  const int64_t dim = config_.head_dim;
  const int64_t out =
      weights_.o_a.rows + (groups_span_ranks() ? 2 * config_.num_heads * dim : 0);
  const int64_t entries =
      dim + (compressor_.has_value() ? compressor_->scratch_per_token() : 0);
  const int64_t index = indexer_.has_value() ? indexer_->scratch_per_token() : 0;
  const int64_t inner = std::max({out, entries + index, dim});
  // Each tensor is rounded up to the alignment.
  return ScratchArena::Bytes(DType::kF64, max_tokens * (config_.q_lora_rank +
                                                        2 * num_heads_ * dim + inner)) +
         (8 + Compressor::kScratchViews + EntryIndexer::kScratchViews) *
             ScratchArena::kAlignment;
}

const StepContext::Entries* CompressedAttention::FindEntries(
    const StepContext& context) const {
  if (ratio_ == 0) {
    return nullptr;
  }
  const auto it =
      std::find_if(context.entries.begin(), context.entries.end(),
                   [&](const StepContext::Entries& e) { return e.ratio == ratio_; });
  TESSERA_CHECK(it != context.entries.end());
  return &*it;
}

CompressedAttention::Queries CompressedAttention::ProjectQueries(
    const StepContext& context, TensorView x) const {
  const int64_t tokens = context.num_tokens;
  auto& ops = *context.backend;
  auto& stream = *context.stream;
  Queries queries;
  queries.low = context.scratch->Take(context.dtype(), {tokens, config_.q_lora_rank});
  ops.Linear(stream, x, weights_.q_a, KSplit::Whole(), queries.low);
  ops.RmsNorm(stream, queries.low, weights_.q_a_norm, norm_eps_, queries.low);
  const TensorView flat =
      context.scratch->Take(context.dtype(), {tokens, num_heads_ * config_.head_dim});
  ops.Linear(stream, queries.low, weights_.q_b, KSplit::Whole(), flat);
  queries.heads = flat.SplitLast(config_.head_dim);
  if (config_.normalizes_heads) {
    ops.RmsNorm(stream, queries.heads, WeightView(), norm_eps_, queries.heads);
  }
  ops.Rope(stream, Tail(queries.heads, config_.rope_dim), context.paged.positions,
           inv_freq_, RopePairing::kInterleaved);
  return queries;
}

void CompressedAttention::StoreWindow(const StepContext& context, TensorView x) const {
  auto& ops = *context.backend;
  auto& stream = *context.stream;
  ScratchArena::Scope scope(context.scratch);
  const int64_t dim = config_.head_dim;
  const TensorView row =
      context.scratch->Take(context.dtype(), {context.num_tokens, dim});
  ops.Linear(stream, x, weights_.kv, KSplit::Whole(), row);
  ops.RmsNorm(stream, row, weights_.kv_norm, norm_eps_, row);
  ops.Rope(stream, Tail(row.SplitLast(dim), config_.rope_dim), context.paged.positions,
           inv_freq_, RopePairing::kInterleaved);
  const int64_t rounded = config_.window_quant_covers_rope ? dim : dim - config_.rope_dim;
  ops.FakeQuantizeE4M3(stream,
                       row.Slice(1, 0, rounded).SplitLast(config_.window_quant_group));
  ops.StorePaged(stream, row, context.tail_slots, window_);
}

void CompressedAttention::StoreEntries(const StepContext& context,
                                       const StepContext::Entries& entries,
                                       TensorView x) const {
  auto& ops = *context.backend;
  auto& stream = *context.stream;
  ScratchArena::Scope scope(context.scratch);
  const int64_t dim = config_.head_dim;
  const TensorView latent =
      context.scratch->Take(context.dtype(), {context.num_tokens, dim});
  compressor_->Compress(context, x, latent);
  if (indexer_.has_value()) {
    indexer_->StoreKeys(context, entries, x, latent);
  }
  ops.Rope(stream, Tail(latent.SplitLast(dim), config_.rope_dim), entries.positions,
           inv_freq_, RopePairing::kInterleaved);
  if (config_.entry_quant_is_fp4) {
    ops.FakeQuantizeFp4(stream, latent.SplitLast(config_.entry_quant_group),
                        kernels::Fp4Scale::kE4M3);
  } else {
    ops.FakeQuantizeE4M3(
        stream,
        latent.Slice(1, 0, dim - config_.rope_dim).SplitLast(config_.entry_quant_group));
  }
  ops.StorePaged(stream, latent, entries.slots, entries_);
}

void CompressedAttention::StoreKeys(const StepContext& context, TensorView x) const {
  StoreWindow(context, x);
  if (compressor_.has_value()) {
    StoreEntries(context, *FindEntries(context), x);
  }
}

void CompressedAttention::Attend(const StepContext& context,
                                 const StepContext::Entries* entries, TensorView q,
                                 TensorView o) const {
  kernels::SharedKvAttentionArgs args;
  args.q = q;
  args.window_rows = window_;
  args.window = context.tail;
  args.window_begin = context.window_begin;
  args.window_end = context.window_end;
  if (entries != nullptr) {
    args.entries = entries_;
    args.entry_index = entries->index;
    args.ratio = ratio_;
  }
  if (selects_) {
    args.selected = selection_->entries();
    args.num_selected = selection_->counts();
  }
  args.sinks = weights_.sinks;
  args.scale = softmax_scale_;
  args.out = o;
  context.backend->SharedKvAttention(*context.stream, args);
}

absl::StatusOr<TensorView> CompressedAttention::GatherHeads(const StepContext& context,
                                                            TensorView o) {
  const int64_t tokens = context.num_tokens;
  const int64_t width = num_heads_ * config_.head_dim;
  const TensorView heads =
      context.scratch->Take(context.dtype(), {tokens, options_.tp_size * width});
  ScratchArena::Scope scope(context.scratch);
  const TensorView by_rank =
      context.scratch->Take(context.dtype(), {options_.tp_size, tokens, width});
  const auto bytes = static_cast<int64_t>(
      model::DTypeBytes(context.dtype(), static_cast<size_t>(tokens * width)));
  std::fill(gather_counts_.begin(), gather_counts_.end(), bytes);
  TESSERA_RETURN_IF_ERROR(GatherOverTp(
      context, {static_cast<const std::byte*>(o.data), static_cast<size_t>(bytes)},
      gather_counts_,
      {static_cast<std::byte*>(by_rank.data),
       static_cast<size_t>(bytes * options_.tp_size)}));
  for (int64_t rank = 0; rank < options_.tp_size; ++rank) {
    context.backend->Copy(*context.stream, by_rank.Rows(rank, 1).Reshape({tokens, width}),
                          heads.Slice(1, rank * width, width));
  }
  return heads;
}

absl::Status CompressedAttention::ProjectGroups(const StepContext& context, TensorView o,
                                                TensorView low) {
  auto& ops = *context.backend;
  const int64_t tokens = context.num_tokens;
  const int64_t groups = config_.num_output_groups;
  const int64_t width = config_.num_heads / groups * config_.head_dim;
  if (!groups_span_ranks()) {
    const int64_t own = groups / options_.tp_size;
    ops.HeadLinear(*context.stream, o.Reshape({tokens, own, width}), weights_.o_a,
                   config_.output_rank, 0, low.SplitLast(config_.output_rank));
    return absl::OkStatus();
  }
  TESSERA_ASSIGN_OR_RETURN(const TensorView heads, GatherHeads(context, o));
  // This rank's rows are a stretch of all groups' rows; each part meets its group.
  const int64_t total = groups * config_.output_rank;
  const int64_t begin = total * options_.tp_rank / options_.tp_size;
  const int64_t end = begin + weights_.o_a.rows;
  for (int64_t row = begin; row < end;) {
    const int64_t group = row / config_.output_rank;
    const int64_t count = std::min(end, (group + 1) * config_.output_rank) - row;
    ops.HeadLinear(*context.stream, heads.Slice(1, group * width, width).SplitLast(width),
                   weights_.o_a.RowSlice(row - begin, count), count, 0,
                   low.Slice(1, row - begin, count).SplitLast(count));
    row += count;
  }
  return absl::OkStatus();
}

absl::Status CompressedAttention::ProjectOut(const StepContext& context, TensorView o,
                                             TensorView out) {
  ScratchArena::Scope scope(context.scratch);
  const TensorView low =
      context.scratch->Take(context.dtype(), {context.num_tokens, weights_.o_a.rows});
  TESSERA_RETURN_IF_ERROR(ProjectGroups(context, o, low));
  context.backend->Linear(*context.stream, low, weights_.o_b.weight, weights_.o_b.split,
                          out);
  return ReduceOverTp(context, out);
}

absl::Status CompressedAttention::Forward(const StepContext& context, TensorView x,
                                          TensorView out) {
  ScratchArena::Scope scope(context.scratch);
  const StepContext::Entries* const entries = FindEntries(context);
  const Queries queries = ProjectQueries(context, x);
  StoreKeys(context, x);
  if (indexer_.has_value()) {
    indexer_->Select(context, *entries, x, queries.low);
    context.Trace("select", options_.layer, selection_->entries());
    if (config_.candidate_source == options_.layer) {
      context.Trace("candidate_blocks", -1, selection_->candidates());
    }
  }
  const TensorView o = context.scratch->Take(
      context.dtype(), {context.num_tokens, num_heads_, config_.head_dim});
  Attend(context, entries, queries.heads, o);
  // Rows and entries were rotated by their own positions; what a head reads of them is
  // turned back by the query's, which leaves the distance.
  context.backend->Rope(*context.stream, Tail(o, config_.rope_dim),
                        context.paged.positions, inverse_freq_,
                        RopePairing::kInterleaved);
  return ProjectOut(context, o, out);
}

}  // namespace tessera::worker
