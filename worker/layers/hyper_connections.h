// HyperConnections: manifold-constrained hyper-connections (mHC, model.md 6.2): M
// residual streams; each sublayer reads their weighted sum and writes back through a
// doubly stochastic M x M mix made by Sinkhorn iterations. Computed whole on every rank.
#ifndef TESSERA_WORKER_LAYERS_HYPER_CONNECTIONS_H_
#define TESSERA_WORKER_LAYERS_HYPER_CONNECTIONS_H_

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
class HyperConnections final : public Residual {
 public:
  explicit HyperConnections(const model::ModelConfig& config)
      : hyper_(config.hyper),
        norm_eps_(config.rms_norm_eps),
        hidden_(config.hidden_size) {}

  int64_t num_streams() const override { return hyper_.num_streams; }
  void Begin(const StepContext& context, kernels::TensorView x,
             kernels::TensorView streams) override;
  absl::Status Around(const StepContext& context, const HyperWeights& weights,
                      kernels::TensorView streams, Sublayer sublayer) override;
  void End(const StepContext&, kernels::TensorView) override {}
  void Collapse(const StepContext& context, const HyperWeights& weights,
                kernels::TensorView streams, kernels::TensorView out) const override;
  size_t scratch_bytes(int64_t max_tokens) const override;

 private:
  const model::HyperConnectionConfig hyper_;
  const double norm_eps_;
  const int64_t hidden_;
};

}  // namespace tessera::worker

#endif  // TESSERA_WORKER_LAYERS_HYPER_CONNECTIONS_H_
