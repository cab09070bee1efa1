// EntryIndexer: picks the compressed entries that a query attends to (DeepSeek-V4,
// model.md 6.5; V4.1, 9.2). Like lightning_indexer.h, over entries instead of tokens: its
// queries and keys rotate at their tail and are rounded to FP4. V4.1 selects in two
// levels: one layer names the candidate blocks that later ones choose from. Computed
// whole on every rank.
#ifndef TESSERA_WORKER_LAYERS_ENTRY_INDEXER_H_
#define TESSERA_WORKER_LAYERS_ENTRY_INDEXER_H_

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>

#include "kernels/cache_view.h"
#include "kernels/tensor_view.h"
#include "model/config/model_config.h"
#include "worker/layers/compressor.h"
#include "worker/layers/index_queries.h"
#include "worker/layers/step_context.h"
#include "worker/layers/weights.h"

namespace tessera::worker {

// What the last layer that selected has left for itself and the layers after it. One per
// rank, shared by its layers; the views live in the scratch memory of one pass.
class EntrySelection {
 public:
  explicit EntrySelection(const model::ModelConfig& config);

  // Takes the memory of a pass; it must stay until the pass ends.
  void Begin(const StepContext& context);
  size_t scratch_bytes(int64_t max_tokens) const;

  const kernels::TensorView& entries() const { return entries_; }  // [T, topk] i32
  const kernels::TensorView& counts() const { return counts_; }    // [T] i32
  // [T, n] i32: candidate blocks; rank 0 for a model with one level.
  const kernels::TensorView& candidates() const { return candidates_; }

 private:
  const int64_t topk_;
  const int64_t num_candidates_;  // n; 0: one level
  kernels::TensorView entries_;
  kernels::TensorView counts_;
  kernels::TensorView candidates_;
};

// Step thread only. Keeps no state but views.
class EntryIndexer {
 public:
  struct Caches {
    kernels::CacheView keys;     // [num_blocks, block_size / ratio, D], of the kv source
    kernels::TensorView values;  // tail caches of keys that are pooled from the input
    kernels::TensorView gates;
  };

  // `layer` is an index source. Weights, caches and `selection` must outlive the object.
  EntryIndexer(const model::ModelConfig& config, int64_t layer,
               const EntryIndexerWeights& weights, const Caches& caches,
               EntrySelection* selection);

  // Caches the keys of the entries that this step completes, where the layer makes
  // entries; else a no-op. x [T, d]; latent [T, D_h] the layer's entries before rotation.
  void StoreKeys(const StepContext& context, const StepContext::Entries& entries,
                 kernels::TensorView x, kernels::TensorView latent) const;

  // Fills the selection (and the candidates, where this layer names them) for each row of
  // x, whose low-rank queries are q_low [T, q].
  void Select(const StepContext& context, const StepContext::Entries& entries,
              kernels::TensorView x, kernels::TensorView q_low) const;

  // Activations per token that a method takes at most, and how many views.
  int64_t scratch_per_token() const;
  static constexpr int64_t kScratchViews = 2 + Compressor::kScratchViews;

 private:
  // Rotation, the Hadamard transform where the model has it, and the rounding to FP4, in
  // place on x [T, heads, D].
  void FinishVectors(const StepContext& context, kernels::TensorView x,
                     kernels::TensorView positions) const;

  const model::IndexerConfig config_;
  const IndexQueries queries_;
  const int64_t rope_dim_;
  const int64_t ratio_;
  const double norm_eps_;
  const int64_t candidate_block_size_;  // 0: one level
  const bool names_candidates_;
  const bool obeys_candidates_;
  const std::vector<float> inv_freq_;
  const EntryIndexerWeights weights_;
  const Caches caches_;
  const std::optional<Compressor> compressor_;
  EntrySelection* const selection_;
};

}  // namespace tessera::worker

#endif  // TESSERA_WORKER_LAYERS_ENTRY_INDEXER_H_
