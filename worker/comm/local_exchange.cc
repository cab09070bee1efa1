#include "worker/comm/local_exchange.h"

#include <utility>

#include "common/status.h"
#include "common/status_macros.h"
#include "worker/comm/exchange_routing.h"

namespace tessera::worker {

using kernels::DType;
using kernels::TensorView;

LocalExchange::LocalExchange(const ExpertExchangeOptions& options,
                             kernels::KernelBackend* backend, ExchangeLists lists,
                             kernels::DeviceBuffer outputs)
    : options_(options),
      backend_(backend),
      lists_(std::move(lists)),
      items_(options_.expert_owner, 0, options.max_tokens * options.experts_per_token,
             TravellingWeights(options_, backend->activation_dtype()),
             std::move(lists_.items)),
      outputs_(std::move(outputs)) {}

absl::StatusOr<std::unique_ptr<ExpertExchange>> LocalExchange::Create(
    const ExpertExchangeOptions& options, kernels::KernelBackend* backend) {
  const int64_t num_rows = options.max_tokens * options.experts_per_token;
  TESSERA_ASSIGN_OR_RETURN(kernels::DeviceBuffer outputs,
                           backend->Allocate(model::DTypeBytes(
                               backend->activation_dtype(),
                               static_cast<size_t>(num_rows * options.hidden_size))));
  TESSERA_ASSIGN_OR_RETURN(ExchangeLists lists,
                           AllocateLists(options, num_rows, backend));
  return std::unique_ptr<ExpertExchange>(
      new LocalExchange(options, backend, std::move(lists), std::move(outputs)));
}

absl::StatusOr<ExpertBatch> LocalExchange::Dispatch(kernels::Stream& stream, TensorView x,
                                                    TensorView expert_ids,
                                                    TensorView weights) {
  TESSERA_RETURN_IF_ERROR(stream.Synchronize());
  TESSERA_RETURN_IF_ERROR(CheckRouting(options_, x, expert_ids, weights));
  num_tokens_ = x.dim(0);
  const int64_t k = options_.experts_per_token;
  const auto weight_bytes = static_cast<int64_t>(model::DTypeBytes(weights.dtype, 1));
  const auto* const weight_of_slot = static_cast<const std::byte*>(weights.data);
  auto* const row_of_slot = static_cast<int32_t*>(lists_.row_of_slot.data());
  items_.Begin();
  for (int64_t t = 0; t < num_tokens_; ++t) {
    for (int64_t j = 0; j < k; ++j) {
      items_.Count(expert_ids.row<int32_t>(t)[j]);
    }
  }
  items_.Offset();
  for (int64_t t = 0; t < num_tokens_; ++t) {
    for (int64_t j = 0; j < k; ++j) {
      const int32_t item =
          items_.Place(expert_ids.row<int32_t>(t)[j], static_cast<int32_t>(t));
      items_.SetWeight(item, weight_of_slot + (t * k + j) * weight_bytes);
      row_of_slot[t * k + j] = item;
    }
  }
  weights_ = options_.weights_travel
                 ? TensorView(lists_.ones.data(), weights.dtype, {num_tokens_, k})
                 : weights;
  return ExpertBatch{
      .rows = x,
      .row_of_item = items_.row_of_item(),
      .item_offsets = items_.item_offsets(),
      .item_weights = items_.item_weights(),
      .out = {outputs_.data(), x.dtype, {items_.num_items(), options_.hidden_size}}};
}

absl::Status LocalExchange::Combine(kernels::Stream& stream, TensorView out) {
  const TensorView y(outputs_.data(), out.dtype,
                     {items_.num_items(), options_.hidden_size});
  const TensorView row_of_slot(lists_.row_of_slot.data(), DType::kI32,
                               {num_tokens_, options_.experts_per_token});
  backend_->CombineExperts(stream, y, row_of_slot, weights_, out);
  return absl::OkStatus();
}

}  // namespace tessera::worker
