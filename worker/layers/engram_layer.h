// EngramLayer: the fourth choice. Adds hashed n-gram memory to the streams before a
// layer's attention (model.md 14.5, arXiv 2601.07372). The rows were asked for before the
// step's forward pass began; this layer waits for them and fuses them. Computed whole on
// every rank.
#ifndef TESSERA_WORKER_LAYERS_ENGRAM_LAYER_H_
#define TESSERA_WORKER_LAYERS_ENGRAM_LAYER_H_

#include <cstddef>
#include <cstdint>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

#include "kernels/tensor_view.h"
#include "model/config/model_config.h"
#include "worker/layers/step_context.h"
#include "worker/layers/weights.h"

namespace tessera::worker {

// Hands out a step's rows. worker/runner/engram_prefetch.h implements it.
class EngramRows {
 public:
  virtual ~EngramRows() = default;
  // Packed rows of engram layer `index` on the device, u8 [T, C * row_bytes]; blocks
  // until they have landed. Errors of EngramSource::Wait.
  virtual absl::StatusOr<kernels::TensorView> Await(const StepContext& context,
                                                    int64_t index) = 0;
  virtual kernels::DType format() const = 0;
};

// Step thread only.
class EngramLayer {
 public:
  // `index` counts the engram layers, `layer` is the model layer. `conv_cache` is the
  // paged z cache [num_blocks, block_size, M d] of the demo contract, empty for v41.
  EngramLayer(const model::ModelConfig& config, int64_t index, int64_t layer,
              const EngramWeights& weights, kernels::TensorView conv_cache);

  // In place on streams [T, M, d].
  absl::Status Forward(const StepContext& context, EngramRows& rows,
                       kernels::TensorView streams);

  size_t scratch_bytes(int64_t max_tokens) const;

 private:
  const model::EngramConfig engram_;
  const double norm_eps_;
  const int64_t hidden_;
  const int64_t num_streams_;
  const int64_t index_;
  const int64_t layer_;
  const EngramWeights weights_;
  const kernels::TensorView conv_cache_;
};

}  // namespace tessera::worker

#endif  // TESSERA_WORKER_LAYERS_ENGRAM_LAYER_H_
