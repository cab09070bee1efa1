// Residual: the second choice: how a layer's sublayers read from and write to what flows
// between layers. The streams are [T, M, d]; M = 1 for a plain residual. Implementations:
// plain_residual.h, hyper_connections.h (mHC).
#ifndef TESSERA_WORKER_LAYERS_RESIDUAL_H_
#define TESSERA_WORKER_LAYERS_RESIDUAL_H_

#include <cstddef>
#include <cstdint>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"

#include "kernels/tensor_view.h"
#include "worker/layers/step_context.h"
#include "worker/layers/weights.h"

namespace tessera::worker {

// A sublayer: out = f(x), x and out [T, d].
using Sublayer =
    absl::FunctionRef<absl::Status(kernels::TensorView x, kernels::TensorView out)>;

// Step thread only.
class Residual {
 public:
  virtual ~Residual() = default;

  virtual int64_t num_streams() const = 0;

  // streams = what the embedding x [T, d] starts with.
  virtual void Begin(const StepContext& context, kernels::TensorView x,
                     kernels::TensorView streams) const = 0;

  // Reads x from the streams, runs the sublayer, and mixes its output back in.
  virtual absl::Status Around(const StepContext& context, const HyperWeights& weights,
                              kernels::TensorView streams, Sublayer sublayer) const = 0;

  // out [T, d] = what the head sees of the streams.
  virtual void Collapse(const StepContext& context, const HyperWeights& weights,
                        kernels::TensorView streams, kernels::TensorView out) const = 0;

  // Scratch of Around, without the sublayer's.
  virtual size_t scratch_bytes(int64_t max_tokens) const = 0;
};

}  // namespace tessera::worker

#endif  // TESSERA_WORKER_LAYERS_RESIDUAL_H_
