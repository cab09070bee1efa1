// In-process group: Communicators for rank threads of one process, used by `tessera
// serve` without worker processes and by the tests of sharded models. Ranks read each
// other's buffers directly: a collective is two barriers with copies or sums between
// them, and allocates nothing.
#ifndef TESSERA_WORKER_COMM_IN_PROCESS_IN_PROCESS_GROUP_H_
#define TESSERA_WORKER_COMM_IN_PROCESS_IN_PROCESS_GROUP_H_

#include <memory>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"

#include "common/clock.h"
#include "worker/comm/communicator.h"

namespace tessera::worker {

// More ranks than this on one machine is a configuration mistake.
inline constexpr int kMaxInProcessRanks = 64;

// One Communicator per rank, in rank order; each goes to the thread of its rank. They
// share the group's state, which lives as long as the last of them; `clock` must outlive
// them all. An error on one rank, or Abort on any of them, ends the whole group.
// kInvalidArgument for a size outside of 1..kMaxInProcessRanks.
absl::StatusOr<std::vector<std::unique_ptr<Communicator>>> CreateInProcessGroup(
    std::string_view name, int size, const CommOptions& options, Clock* clock);

}  // namespace tessera::worker

#endif  // TESSERA_WORKER_COMM_IN_PROCESS_IN_PROCESS_GROUP_H_
