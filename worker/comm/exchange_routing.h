// CheckRouting: what both versions of ExpertExchange check of a Dispatch before they
// index with it.
#ifndef TESSERA_WORKER_COMM_EXCHANGE_ROUTING_H_
#define TESSERA_WORKER_COMM_EXCHANGE_ROUTING_H_

#include "absl/status/status.h"

#include "kernels/tensor_view.h"
#include "worker/comm/expert_exchange.h"

namespace tessera::worker {

// kInternal if x or expert_ids do not have the exchange's shape, hold more than
// max_tokens, or name an expert that does not exist: the router or the scheduler is wrong
// then.
absl::Status CheckRouting(const ExpertExchangeOptions& options, kernels::TensorView x,
                          kernels::TensorView expert_ids);

}  // namespace tessera::worker

#endif  // TESSERA_WORKER_COMM_EXCHANGE_ROUTING_H_
