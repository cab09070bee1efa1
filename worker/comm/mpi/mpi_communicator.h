// MpiCommunicator: the Communicator over an MPI communicator. Calls are nonblocking
// inside and polled against the deadline, because a blocking MPI call cannot be
// interrupted. Made by MpiRuntime; the only header that shows an MPI type besides
// mpi_transfers.h.
#ifndef TESSERA_WORKER_COMM_MPI_MPI_COMMUNICATOR_H_
#define TESSERA_WORKER_COMM_MPI_MPI_COMMUNICATOR_H_

#include <atomic>
#include <memory>
#include <string_view>

#include "absl/status/statusor.h"
#include <mpi.h>

#include "common/clock.h"
#include "worker/comm/communicator.h"

namespace tessera::worker {

// What the groups of one MPI job share.
struct MpiJob {
  std::atomic<bool> faulted = false;  // a group has died
  // Taken around everything that calls MPI at run time: MPI_THREAD_SERIALIZED allows one
  // thread at a time, and Abort comes from any. A step holds it while it waits for its
  // peers, so that whoever else wants it tries once and leaves.
  std::atomic<bool> in_use = false;
};

// Takes `comm` over and frees it, unless the group dies: freeing is collective. `comm`
// returns errors (MPI_ERRORS_RETURN). Sets job->faulted when the group dies. kUnavailable
// if MPI fails.
absl::StatusOr<std::unique_ptr<Communicator>> MakeMpiCommunicator(
    std::string_view name, MPI_Comm comm, const CommOptions& options, Clock* clock,
    std::shared_ptr<MpiJob> job);

}  // namespace tessera::worker

#endif  // TESSERA_WORKER_COMM_MPI_MPI_COMMUNICATOR_H_
