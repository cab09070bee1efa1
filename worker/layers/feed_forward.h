// FeedForward: what follows attention in a layer: a dense SwiGLU MLP or a mixture of
// experts. The router is the third of the four choices; it lives inside the mixture
// (moe.h).
#ifndef TESSERA_WORKER_LAYERS_FEED_FORWARD_H_
#define TESSERA_WORKER_LAYERS_FEED_FORWARD_H_

#include <cstddef>
#include <cstdint>

#include "absl/status/status.h"

#include "kernels/tensor_view.h"
#include "worker/layers/step_context.h"

namespace tessera::worker {

// Step thread only.
class FeedForward {
 public:
  virtual ~FeedForward() = default;

  // out = ffn(x); x and out [T, d], x is already normed. Errors are those of the
  // collectives.
  virtual absl::Status Forward(const StepContext& context, kernels::TensorView x,
                               kernels::TensorView out) = 0;

  virtual size_t scratch_bytes(int64_t max_tokens) const = 0;
};

}  // namespace tessera::worker

#endif  // TESSERA_WORKER_LAYERS_FEED_FORWARD_H_
