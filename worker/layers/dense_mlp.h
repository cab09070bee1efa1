// DenseMlp: down(silu(gate x) * (up x)), its inner width split over the TP group, one
// reduction. Serves dense layers and the shared experts of a mixture; of the latter, V4
// limits gate and up (model.md 6.7).
#ifndef TESSERA_WORKER_LAYERS_DENSE_MLP_H_
#define TESSERA_WORKER_LAYERS_DENSE_MLP_H_

#include <cstddef>
#include <cstdint>

#include "absl/status/status.h"

#include "kernels/tensor_view.h"
#include "worker/layers/feed_forward.h"
#include "worker/layers/step_context.h"
#include "worker/layers/weights.h"

namespace tessera::worker {

class DenseMlp final : public FeedForward {
 public:
  // `swiglu_limit` 0: none.
  DenseMlp(const MlpWeights& weights, double swiglu_limit)
      : weights_(weights), swiglu_limit_(swiglu_limit) {}

  absl::Status Forward(const StepContext& context, kernels::TensorView x,
                       kernels::TensorView out) override;
  size_t scratch_bytes(int64_t max_tokens) const override;

  // Forward without the reduction: this rank's part of the sum, ops alone.
  void Partial(const StepContext& context, kernels::TensorView x,
               kernels::TensorView out);

 private:
  const MlpWeights weights_;
  const double swiglu_limit_;
};

}  // namespace tessera::worker

#endif  // TESSERA_WORKER_LAYERS_DENSE_MLP_H_
