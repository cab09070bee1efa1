// LocalExchange: ExpertExchange of a group of one rank. No row moves: the batch's rows
// are x itself, and Combine reads the experts' outputs where they were written. The host
// neither sorts nor waits.
#ifndef TESSERA_WORKER_COMM_LOCAL_EXCHANGE_H_
#define TESSERA_WORKER_COMM_LOCAL_EXCHANGE_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

#include "worker/comm/exchange_routing.h"
#include "worker/comm/expert_exchange.h"
#include "worker/comm/expert_lists.h"

namespace tessera::worker {

// Step thread only. Made by ExpertExchange::Create, which has checked the options.
class LocalExchange final : public ExpertExchange {
 public:
  // kResourceExhausted if the backend has no memory for lists and outputs.
  static absl::StatusOr<std::unique_ptr<ExpertExchange>> Create(
      const ExpertExchangeOptions& options, kernels::KernelBackend* backend);

  // kInternal for arguments of a wrong shape, or more tokens than max_tokens.
  absl::StatusOr<ExpertBatch> Dispatch(kernels::Stream& stream, kernels::TensorView x,
                                       kernels::TensorView expert_ids,
                                       kernels::TensorView weights) override;
  absl::Status Combine(kernels::Stream& stream, kernels::TensorView out) override;
  absl::Status Check() override { return lists_.Check(); }
  bool is_capturable() const override { return true; }
  int64_t row_bytes() const override {
    return static_cast<int64_t>(model::DTypeBytes(
        backend_->activation_dtype(), static_cast<size_t>(options_.hidden_size)));
  }
  std::span<const int> local_experts() const override { return lists_.local_experts(); }

 private:
  LocalExchange(const ExpertExchangeOptions& options, kernels::KernelBackend* backend)
      : options_(options), backend_(backend) {}

  const ExpertExchangeOptions options_;
  kernels::KernelBackend* const backend_;
  ExpertLists lists_;
  kernels::DeviceBuffer ones_;     // [max_tokens, k] where weights travel
  kernels::DeviceBuffer outputs_;  // [max_tokens k, d]
  // Of the exchange in progress.
  kernels::TensorView y_;        // [T k, d], in outputs_
  kernels::TensorView weights_;  // [T, k]
};

}  // namespace tessera::worker

#endif  // TESSERA_WORKER_COMM_LOCAL_EXCHANGE_H_
