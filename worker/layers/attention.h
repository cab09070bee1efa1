// Attention: the first of the four choices. One object per layer; it owns no cache, only
// views of the rank's pools. The implementations: mla_attention.h,
// compressed_attention.h.
#ifndef TESSERA_WORKER_LAYERS_ATTENTION_H_
#define TESSERA_WORKER_LAYERS_ATTENTION_H_

#include <cstddef>
#include <cstdint>

#include "absl/status/status.h"

#include "kernels/tensor_view.h"
#include "worker/layers/step_context.h"

namespace tessera::worker {

// Step thread only.
class Attention {
 public:
  virtual ~Attention() = default;

  // Writes this step's cache entries, then out = attention(x). x, out [T, d]; x is
  // already normed. Errors are those of the TP reduction.
  virtual absl::Status Forward(const StepContext& context, kernels::TensorView x,
                               kernels::TensorView out) = 0;

  // Writes the cache entries alone, as Forward does: for tokens that need no output. T is
  // above 0.
  virtual void StoreKeys(const StepContext& context, kernels::TensorView x) const = 0;

  // Scratch that Forward takes for `max_tokens` tokens.
  virtual size_t scratch_bytes(int64_t max_tokens) const = 0;
};

}  // namespace tessera::worker

#endif  // TESSERA_WORKER_LAYERS_ATTENTION_H_
