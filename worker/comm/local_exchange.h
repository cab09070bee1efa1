// LocalExchange: ExpertExchange of a group of one rank. No row moves: the batch's rows
// are x itself, and Combine reads the experts' outputs where they were written.
#ifndef TESSERA_WORKER_COMM_LOCAL_EXCHANGE_H_
#define TESSERA_WORKER_COMM_LOCAL_EXCHANGE_H_

#include <memory>
#include <span>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

#include "worker/comm/exchange_routing.h"
#include "worker/comm/expert_exchange.h"
#include "worker/comm/expert_items.h"

namespace tessera::worker {

// Step thread only. Made by ExpertExchange::Create, which has checked the options.
class LocalExchange final : public ExpertExchange {
 public:
  // kResourceExhausted if the backend has no memory for the experts' outputs.
  static absl::StatusOr<std::unique_ptr<ExpertExchange>> Create(
      const ExpertExchangeOptions& options, kernels::KernelBackend* backend);

  // kInternal for an expert out of range or more tokens than max_tokens.
  absl::StatusOr<ExpertBatch> Dispatch(kernels::Stream& stream, kernels::TensorView x,
                                       kernels::TensorView expert_ids,
                                       kernels::TensorView weights) override;
  absl::Status Combine(kernels::Stream& stream, kernels::TensorView out) override;
  std::span<const int> local_experts() const override { return items_.local_experts(); }

 private:
  LocalExchange(const ExpertExchangeOptions& options, kernels::KernelBackend* backend,
                ExchangeLists lists, kernels::DeviceBuffer outputs);

  const ExpertExchangeOptions options_;
  kernels::KernelBackend* const backend_;
  ExchangeLists lists_;  // that of the items is theirs
  ExpertItems items_;
  kernels::DeviceBuffer outputs_;  // [max_tokens k, d]
  kernels::TensorView weights_;    // [T, k] of the exchange in progress
  int64_t num_tokens_ = 0;         // of the exchange in progress
};

}  // namespace tessera::worker

#endif  // TESSERA_WORKER_COMM_LOCAL_EXCHANGE_H_
