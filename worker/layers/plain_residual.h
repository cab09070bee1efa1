// PlainResidual: what flows between layers is one vector per token; a sublayer reads it
// whole and its output is added (model.md 5.1). One stream, no weights.
#ifndef TESSERA_WORKER_LAYERS_PLAIN_RESIDUAL_H_
#define TESSERA_WORKER_LAYERS_PLAIN_RESIDUAL_H_

#include <cstddef>
#include <cstdint>

#include "absl/status/status.h"

#include "kernels/tensor_view.h"
#include "model/config/model_config.h"
#include "worker/layers/residual.h"
#include "worker/layers/step_context.h"
#include "worker/layers/weights.h"

namespace tessera::worker {

// Stateless apart from the configuration; shared by all layers.
class PlainResidual final : public Residual {
 public:
  explicit PlainResidual(const model::ModelConfig& config)
      : hidden_(config.hidden_size) {}

  int64_t num_streams() const override { return 1; }
  void Begin(const StepContext& context, kernels::TensorView x,
             kernels::TensorView streams) override;
  // `weights` are empty here and below. The sublayer sees the stream itself and must not
  // write to it.
  absl::Status Around(const StepContext& context, const HyperWeights& weights,
                      kernels::TensorView streams, Sublayer sublayer) override;
  void End(const StepContext&, kernels::TensorView) override {}
  void Collapse(const StepContext& context, const HyperWeights& weights,
                kernels::TensorView streams, kernels::TensorView out) const override;
  size_t scratch_bytes(int64_t max_tokens) const override;

 private:
  const int64_t hidden_;
};

}  // namespace tessera::worker

#endif  // TESSERA_WORKER_LAYERS_PLAIN_RESIDUAL_H_
