// LightningIndexer: picks the tokens that a query attends to (DSA; DeepSeek-V3.2,
// model.md 5.3). It has queries and keys of its own, far narrower than attention's, a
// paged cache of keys, and one score per token for all heads. Computed whole on every
// rank.
#ifndef TESSERA_WORKER_LAYERS_LIGHTNING_INDEXER_H_
#define TESSERA_WORKER_LAYERS_LIGHTNING_INDEXER_H_

#include <cstdint>
#include <span>

#include "kernels/cache_view.h"
#include "kernels/tensor_view.h"
#include "model/config/model_config.h"
#include "worker/layers/index_queries.h"
#include "worker/layers/step_context.h"
#include "worker/layers/weights.h"

namespace tessera::worker {

// Step thread only. Keeps no state but views.
class LightningIndexer {
 public:
  struct Selection {
    kernels::TensorView positions;  // [T, topk] i32, rising, then -1
    kernels::TensorView counts;     // [T] i32
  };

  // `key_cache` [num_blocks, block_size, D]. Weights and cache must outlive the object.
  LightningIndexer(const model::ModelConfig& config, const IndexerWeights& weights,
                   const kernels::CacheView& key_cache);

  // Caches the keys of x [T, d].
  void StoreKeys(const StepContext& context, kernels::TensorView x,
                 std::span<const float> inv_freq) const;

  // The selection of each row of x, whose low-rank queries are q_low [T, q]. Its views
  // live in the caller's scratch scope.
  Selection Select(const StepContext& context, kernels::TensorView x,
                   kernels::TensorView q_low, std::span<const float> inv_freq) const;

  // Activations per token that the methods take together, and how many views at most.
  int64_t scratch_per_token() const;
  static constexpr int64_t kScratchViews = 5;

 private:
  // Rotation, the Hadamard transform and, where the model has it, the quantisation, in
  // place on x [T, heads, D].
  void FinishVectors(const StepContext& context, kernels::TensorView x,
                     std::span<const float> inv_freq) const;

  const model::IndexerConfig config_;
  const IndexQueries queries_;
  const IndexerWeights weights_;
  const kernels::CacheView key_cache_;
};

}  // namespace tessera::worker

#endif  // TESSERA_WORKER_LAYERS_LIGHTNING_INDEXER_H_
