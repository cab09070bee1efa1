// HyperHandOff: single-pass mHC (DeepSeek-V4.1, model.md 9.2): as hyper_connections.h,
// but a sublayer reads the streams with the `pre` weights that the sublayer before it
// computed; the first reads stream 0 alone, and what the head sees is the sum by the
// weights of the last. There are no weights of a head. Computed whole on every rank.
#ifndef TESSERA_WORKER_LAYERS_HYPER_HAND_OFF_H_
#define TESSERA_WORKER_LAYERS_HYPER_HAND_OFF_H_

#include <cstddef>
#include <cstdint>

#include "absl/status/status.h"

#include "kernels/tensor_view.h"
#include "model/config/model_config.h"
#include "worker/layers/residual.h"
#include "worker/layers/step_context.h"
#include "worker/layers/weights.h"

namespace tessera::worker {

// Shared by all layers of a rank; keeps the weights that are handed on, in scratch memory
// of the pass, between Begin and End.
class HyperHandOff final : public Residual {
 public:
  explicit HyperHandOff(const model::ModelConfig& config)
      : hyper_(config.hyper),
        norm_eps_(config.rms_norm_eps),
        hidden_(config.hidden_size) {}

  int64_t num_streams() const override { return hyper_.num_streams; }
  void Begin(const StepContext& context, kernels::TensorView x,
             kernels::TensorView streams) override;
  absl::Status Around(const StepContext& context, const HyperWeights& weights,
                      kernels::TensorView streams, Sublayer sublayer) override;
  // The collapsed streams replace stream 0, from where Collapse takes them.
  void End(const StepContext& context, kernels::TensorView streams) override;
  // `weights` are empty.
  void Collapse(const StepContext& context, const HyperWeights& weights,
                kernels::TensorView streams, kernels::TensorView out) const override;
  size_t scratch_bytes(int64_t max_tokens) const override;

 private:
  // out [T, d] = what the next reader sees of the streams.
  void Read(const StepContext& context, kernels::TensorView streams,
            kernels::TensorView out) const;

  const model::HyperConnectionConfig hyper_;
  const double norm_eps_;
  const int64_t hidden_;
  kernels::TensorView pre_;  // [T, M]: handed on
  bool is_first_ = true;     // nothing has been handed on yet
};

}  // namespace tessera::worker

#endif  // TESSERA_WORKER_LAYERS_HYPER_HAND_OFF_H_
