// Compressor: makes one entry of `ratio` tokens (DeepSeek-V4, model.md 6.4; V4.1, 9.2):
// a softmax of gates over the tokens, for each channel, weighs their values; where
// entries overlap, the tokens of the group before take part with a half of the channels
// of their own. Its raw rows are cached in tail blocks, so that a chunk may end anywhere
// and a draft that is rejected is simply written over. Computed whole on every rank.
//
//   u = kv x, g = gate x + position[p mod ratio]; entry = norm(sum u softmax(g))
#ifndef TESSERA_WORKER_LAYERS_COMPRESSOR_H_
#define TESSERA_WORKER_LAYERS_COMPRESSOR_H_

#include <cstdint>

#include "kernels/tensor_view.h"
#include "worker/layers/step_context.h"
#include "worker/layers/weights.h"

namespace tessera::worker {

// Step thread only. Keeps no state but views.
class Compressor {
 public:
  struct Options {
    int64_t ratio = 1;
    bool overlaps = false;
    double norm_eps = 0;
  };

  // `values` and `gates` are tail caches of width C; rank 0 at ratio 1, where an entry is
  // its token's row. Weights and caches must outlive the object.
  Compressor(const Options& options, const CompressorWeights& weights,
             kernels::TensorView values, kernels::TensorView gates)
      : options_(options), weights_(weights), values_(values), gates_(gates) {}

  // latent (out) [T, D]: row t is the normed entry that token t completes, not rotated;
  // of a token that completes none it is of no meaning. x [T, d].
  void Compress(const StepContext& context, kernels::TensorView x,
                kernels::TensorView latent) const;

  // Activations per token that Compress takes, and how many views.
  int64_t scratch_per_token() const { return 2 * weights_.kv.rows; }
  static constexpr int64_t kScratchViews = 2;

 private:
  const Options options_;
  const CompressorWeights weights_;
  const kernels::TensorView values_;
  const kernels::TensorView gates_;
};

}  // namespace tessera::worker

#endif  // TESSERA_WORKER_LAYERS_COMPRESSOR_H_
