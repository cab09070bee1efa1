#include "worker/comm/local_exchange.h"

#include "common/status.h"
#include "common/status_macros.h"

namespace tessera::worker {

using kernels::TensorView;

absl::StatusOr<std::unique_ptr<ExpertExchange>> LocalExchange::Create(
    const ExpertExchangeOptions& options, kernels::KernelBackend* backend) {
  std::unique_ptr<LocalExchange> exchange(new LocalExchange(options, backend));
  TESSERA_ASSIGN_OR_RETURN(exchange->lists_,
                           ExpertLists::Create(options, 0, options.max_tokens, backend));
  TESSERA_ASSIGN_OR_RETURN(exchange->ones_, AllocateOnes(options, backend));
  TESSERA_ASSIGN_OR_RETURN(
      exchange->outputs_,
      backend->Allocate(model::DTypeBytes(
          backend->activation_dtype(),
          static_cast<size_t>(options.max_tokens * options.experts_per_token *
                              options.hidden_size))));
  return exchange;
}

absl::StatusOr<ExpertBatch> LocalExchange::Dispatch(kernels::Stream& stream, TensorView x,
                                                    TensorView expert_ids,
                                                    TensorView weights) {
  TESSERA_RETURN_IF_ERROR(CheckShapes(options_, x, expert_ids, weights));
  const int64_t num_tokens = x.dim(0);
  const int64_t k = options_.experts_per_token;
  lists_.List(stream, expert_ids, weights);
  y_ = {outputs_.data(), x.dtype, {num_tokens * k, options_.hidden_size}};
  weights_ = options_.weights_travel
                 ? TensorView(ones_.data(), weights.dtype, {num_tokens, k})
                 : weights;
  return ExpertBatch{.rows = x,
                     .row_of_item = lists_.row_of_item(),
                     .item_offsets = lists_.item_offsets(),
                     .item_weights = lists_.item_weights(),
                     .out = y_};
}

absl::Status LocalExchange::Combine(kernels::Stream& stream, TensorView out) {
  backend_->CombineExperts(stream, y_, lists_.row_of_slot(), weights_, out);
  return absl::OkStatus();
}

}  // namespace tessera::worker
