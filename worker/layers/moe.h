// Moe: router, routed experts over all ranks, shared expert over the TP group.
//
//   route (whole on every rank; hash layers look the experts up by token id) -> dispatch
//   this rank's share of the tokens -> shared expert, which needs x alone, while they are
//   under way -> grouped experts -> combine at home in slot order -> gather the shares of
//   the TP group -> add the shared expert
//
// Dispatch, experts and combine may go in rounds (ExpertExchange::Send). Collectives over
// TP come after the exchange, never beside it: a device has one of a group at a time.
//
// The ranks of a TP group hold the same tokens; each dispatches a contiguous share, so no
// row crosses the wire twice. Per layer: two all-to-alls over R ranks, one all-gather and
// one reduction over tp.
#ifndef TESSERA_WORKER_LAYERS_MOE_H_
#define TESSERA_WORKER_LAYERS_MOE_H_

#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"

#include "kernels/tensor_view.h"
#include "model/config/model_config.h"
#include "worker/comm/expert_exchange.h"
#include "worker/layers/dense_mlp.h"
#include "worker/layers/feed_forward.h"
#include "worker/layers/step_context.h"
#include "worker/layers/weights.h"

namespace tessera::worker {

class Moe final : public FeedForward {
 public:
  // `layer` may be a draft layer, num_layers and up. `exchange` is shared by all layers
  // of the rank with the same experts and must outlive them.
  Moe(const model::ModelConfig& config, int64_t layer, const MoeWeights& weights,
      ExpertExchange* exchange);

  absl::Status Forward(const StepContext& context, kernels::TensorView x,
                       kernels::TensorView out) override;
  size_t scratch_bytes(int64_t max_tokens) const override;

 private:
  // `rows`: of all tokens. `meanwhile` enqueues what needs none of their outputs.
  absl::Status RoutedExperts(const StepContext& context, const ExchangeRows& rows,
                             absl::FunctionRef<void()> meanwhile);
  // The rows of this rank's share, by way of the experts; booked as a collective.
  absl::Status ExchangeShare(const StepContext& context, const ExchangeRows& share,
                             absl::FunctionRef<void()> meanwhile);
  void Route(const StepContext& context, kernels::TensorView x,
             kernels::TensorView expert_ids, kernels::TensorView weights);

  const model::MoeConfig moe_;
  const kernels::RouterScore score_;
  const double swiglu_limit_;
  const int64_t hidden_;
  const int64_t layer_;
  const MoeWeights weights_;
  ExpertExchange* const exchange_;
  std::optional<DenseMlp> shared_;
  std::vector<int64_t> gather_counts_;  // bytes of each TP rank's share
};

}  // namespace tessera::worker

#endif  // TESSERA_WORKER_LAYERS_MOE_H_
