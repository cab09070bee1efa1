// What both versions of ExpertExchange share: CheckRouting, which they do before they
// index with a Dispatch, and the weights of Combine.
#ifndef TESSERA_WORKER_COMM_EXCHANGE_ROUTING_H_
#define TESSERA_WORKER_COMM_EXCHANGE_ROUTING_H_

#include <cstddef>
#include <optional>
#include <vector>

#include "absl/status/status.h"

#include "kernels/tensor_view.h"
#include "worker/comm/expert_exchange.h"

namespace tessera::worker {

// kInternal if x, expert_ids or weights do not have the exchange's shape, hold more than
// max_tokens, or name an expert that does not exist: the router or the scheduler is wrong
// then.
absl::Status CheckRouting(const ExpertExchangeOptions& options, kernels::TensorView x,
                          kernels::TensorView expert_ids, kernels::TensorView weights);

// The type in which routing weights travel: that of the rows; nothing where they do not.
std::optional<kernels::DType> TravellingWeights(const ExpertExchangeOptions& options,
                                                kernels::DType rows);

// Weights of 1 for Combine of max_tokens tokens, [max_tokens, k]; empty unless weights
// travel.
std::vector<std::byte> UnitWeights(const ExpertExchangeOptions& options,
                                   kernels::DType dtype);

}  // namespace tessera::worker

#endif  // TESSERA_WORKER_COMM_EXCHANGE_ROUTING_H_
