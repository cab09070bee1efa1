// What the versions of ExpertExchange share: the checks of a Dispatch, and the weights of
// Combine.
#ifndef TESSERA_WORKER_COMM_EXCHANGE_ROUTING_H_
#define TESSERA_WORKER_COMM_EXCHANGE_ROUTING_H_

#include <cstdint>
#include <optional>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

#include "kernels/kernel_backend.h"
#include "kernels/runtime/device_buffer.h"
#include "kernels/tensor_view.h"
#include "worker/comm/expert_exchange.h"

namespace tessera::worker {

// kInternal if x, expert_ids or weights do not have the exchange's shape, or hold more
// than max_tokens: the scheduler is wrong then.
absl::Status CheckShapes(const ExpertExchangeOptions& options, kernels::TensorView x,
                         kernels::TensorView expert_ids, kernels::TensorView weights);

// The same, and for who indexes with the ids: also if one names an expert that does not
// exist.
absl::Status CheckRouting(const ExpertExchangeOptions& options, kernels::TensorView x,
                          kernels::TensorView expert_ids, kernels::TensorView weights);

// The type in which routing weights travel: that of the rows; nothing where they do not.
std::optional<kernels::DType> TravellingWeights(const ExpertExchangeOptions& options,
                                                kernels::DType rows);

// Memory of the backend that ops of an exchange read and its host code writes.
struct ExchangeLists {
  kernels::DeviceBuffer items;        // of ExpertItems
  kernels::DeviceBuffer row_of_slot;  // [max_tokens, k] i32
  kernels::DeviceBuffer ones;         // [max_tokens, k] of 1 where weights travel
};
// [max_tokens, k] of 1 where weights travel, else nothing. kResourceExhausted.
absl::StatusOr<kernels::DeviceBuffer> AllocateOnes(const ExpertExchangeOptions& options,
                                                   kernels::KernelBackend* backend);
// `max_items`: of the rank. kResourceExhausted.
absl::StatusOr<ExchangeLists> AllocateLists(const ExpertExchangeOptions& options,
                                            int64_t max_items,
                                            kernels::KernelBackend* backend);

}  // namespace tessera::worker

#endif  // TESSERA_WORKER_COMM_EXCHANGE_ROUTING_H_
