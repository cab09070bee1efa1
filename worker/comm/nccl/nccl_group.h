// NCCL group: Communicators over the devices of a group (kernels::DeviceCollectives, so
// no NCCL or CUDA type is seen here). Buffers of a call go through memory of the device,
// a piece at a time. Every wait polls, since neither NCCL nor a device can be
// interrupted: until the call is done, its deadline, Abort, or a peer that NCCL says is
// gone. On a backend's stream (nccl_stream.h) nothing is copied, and nobody waits.
//
// NCCL cannot probe: an AllToAllV sends the lengths of its parts ahead, 8 bytes to each
// rank, and no empty part after them. AllReduceSum is a recursive doubling whose
// additions the host makes, in the order of tree_sum.h.
#ifndef TESSERA_WORKER_COMM_NCCL_NCCL_GROUP_H_
#define TESSERA_WORKER_COMM_NCCL_NCCL_GROUP_H_

#include <memory>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"

#include "common/clock.h"
#include "kernels/runtime/device_collectives.h"
#include "worker/comm/communicator.h"

namespace tessera::worker {

// Start-up is slower than a call, so that its deadline may be too short for it.
inline constexpr absl::Duration kFormationTimeout = absl::Seconds(30);

// A Communicator for each of `ranks`: the ranks of one group that live in this process,
// all of them or, where each is a process, one. Each goes to the thread of its rank. They
// share the news of an error: the first one, or Abort of one of them, ends the group for
// all. Of other processes' ranks one hears through NCCL, at the latest by the deadline.
//
// Waits until the group is formed: kDeadlineExceeded after options.timeout, at least
// kFormationTimeout, with all of `ranks` aborted; kResourceExhausted without memory on a
// device. `clock` must outlive the Communicators.
absl::StatusOr<std::vector<std::unique_ptr<Communicator>>> CreateNcclGroup(
    std::string_view name, std::vector<std::unique_ptr<kernels::DeviceCollectives>> ranks,
    const CommOptions& options, Clock* clock);

}  // namespace tessera::worker

#endif  // TESSERA_WORKER_COMM_NCCL_NCCL_GROUP_H_
