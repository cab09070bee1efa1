// The argument rules of Communicator's contract, checked alike by every implementation.
// Each function gives kInvalidArgument that names the group, the rank and the two values
// that disagree.
#ifndef TESSERA_WORKER_COMM_COLLECTIVE_ARGUMENTS_H_
#define TESSERA_WORKER_COMM_COLLECTIVE_ARGUMENTS_H_

#include <cstddef>
#include <cstdint>
#include <span>

#include "absl/status/status.h"

#include "kernels/tensor_view.h"
#include "worker/comm/communicator.h"

namespace tessera::worker {

// kF32 or kF64, contiguous, a group of a power of two.
absl::Status CheckAllReduceArguments(const Communicator& group, kernels::TensorView x);

// One count per rank, none negative, that add up to `recv_bytes`; send is this rank's
// part.
absl::Status CheckAllGatherArguments(const Communicator& group, size_t send_bytes,
                                     std::span<const int64_t> counts, size_t recv_bytes);

// One count per rank both ways; the send counts add up to `send_bytes`.
absl::Status CheckAllToAllArguments(const Communicator& group, size_t send_bytes,
                                    std::span<const int64_t> send_counts,
                                    std::span<const int64_t> recv_counts);

absl::Status CheckRoot(const Communicator& group, int root);

}  // namespace tessera::worker

#endif  // TESSERA_WORKER_COMM_COLLECTIVE_ARGUMENTS_H_
