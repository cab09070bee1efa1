// MlaAttention: multi-head latent attention (model.md 5.2) over everything visible or,
// with a lightning indexer, over the tokens that it selects; in the absorbed form:
// queries meet the cached latents directly, so a token's cache is c + r values for all
// heads.
//
// Tensor parallelism: q_b and kv_b by heads, o_proj by columns (the one reduction); the
// latent, the rope key and the whole indexer are computed alike on every rank.
#ifndef TESSERA_WORKER_LAYERS_MLA_ATTENTION_H_
#define TESSERA_WORKER_LAYERS_MLA_ATTENTION_H_

#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

#include "absl/status/status.h"

#include "kernels/cache_view.h"
#include "kernels/tensor_view.h"
#include "model/config/model_config.h"
#include "worker/layers/attention.h"
#include "worker/layers/lightning_indexer.h"
#include "worker/layers/step_context.h"
#include "worker/layers/weights.h"

namespace tessera::worker {

// One layer's paged caches, [num_blocks, block_size, width] each.
struct MlaCache {
  kernels::CacheView rows;       // width c + r: latent, then rope key
  kernels::CacheView index_key;  // width D; none without an indexer
};

class MlaAttention final : public Attention {
 public:
  // `layer` names the layer in traces. Weights and cache views must outlive the object.
  MlaAttention(const model::ModelConfig& config, int64_t layer, int tp_size,
               const MlaWeights& weights, const MlaCache& cache);

  absl::Status Forward(const StepContext& context, kernels::TensorView x,
                       kernels::TensorView out) override;
  void StoreKeys(const StepContext& context, kernels::TensorView x) const override;
  size_t scratch_bytes(int64_t max_tokens) const override;

 private:
  struct Queries {
    kernels::TensorView nope;  // [T, H_local, n]
    kernels::TensorView rope;  // [T, H_local, r]
  };
  Queries ProjectQueries(const StepContext& context, kernels::TensorView q_low) const;

  const model::MlaConfig mla_;
  const double norm_eps_;
  const double softmax_scale_;
  const int64_t layer_;
  const int64_t num_heads_;  // H_local
  const std::vector<float> inv_freq_;
  const MlaWeights weights_;
  const MlaCache cache_;
  const std::optional<LightningIndexer> indexer_;
};

}  // namespace tessera::worker

#endif  // TESSERA_WORKER_LAYERS_MLA_ATTENTION_H_
