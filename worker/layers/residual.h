// Residual: the second choice: how a layer's sublayers read from and write to what flows
// between layers. The streams are [T, M, d]; M = 1 for a plain residual. Implementations:
// plain_residual.h, hyper_connections.h (mHC), hyper_hand_off.h (mHC of V4.1).
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

// Step thread only. A pass over layers is Begin, Around for each sublayer, End; a pass
// over a draft layer alone may be Around without Begin, where the residual hands nothing
// from one sublayer to the next.
class Residual {
 public:
  virtual ~Residual() = default;

  virtual int64_t num_streams() const = 0;

  // streams = what the embedding x [T, d] starts with. May take scratch memory, which
  // must stay until End.
  virtual void Begin(const StepContext& context, kernels::TensorView x,
                     kernels::TensorView streams) = 0;

  // Reads x from the streams, runs the sublayer, and mixes its output back in.
  virtual absl::Status Around(const StepContext& context, const HyperWeights& weights,
                              kernels::TensorView streams, Sublayer sublayer) = 0;

  // After the last sublayer: what Collapse needs of the pass goes into the streams
  // themselves, so that rows of them can be picked and kept.
  virtual void End(const StepContext& context, kernels::TensorView streams) = 0;

  // out [n, d] = what the head sees of the streams [n, M, d] that End left.
  virtual void Collapse(const StepContext& context, const HyperWeights& weights,
                        kernels::TensorView streams, kernels::TensorView out) const = 0;

  // Scratch of Begin and Around, without the sublayer's.
  virtual size_t scratch_bytes(int64_t max_tokens) const = 0;
};

}  // namespace tessera::worker

#endif  // TESSERA_WORKER_LAYERS_RESIDUAL_H_
