// MpiRuntime: MPI's life in a worker process, and the groups made of the processes that
// mpirun started. MPI carries tensors between ranks and nothing else: membership, health
// and epochs are the coordinator's. A rank that dies takes its MPI job with it, so a job
// is thrown away after a fault.
// After a fault in the middle of a call MPI may still hold that call's buffers: the only
// safe end of the process is then an exit without destructors, which is for the command
// line to do.
//
// This header names no MPI type: mpi.h stays inside of the folder.
#ifndef TESSERA_WORKER_COMM_MPI_MPI_RUNTIME_H_
#define TESSERA_WORKER_COMM_MPI_MPI_RUNTIME_H_

#include <memory>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

#include "common/clock.h"
#include "worker/comm/communicator.h"

namespace tessera::worker {

struct MpiJob;

// One per process. MPI runs with MPI_THREAD_SERIALIZED: calls of the runtime and of its
// Communicators may come from any thread, never two at a time. Outlives the Communicators
// that it made.
class MpiRuntime {
 public:
  // Joins the job that mpirun started; without mpirun, a job of one. Blocks until all
  // processes of the job have come. kFailedPrecondition if MPI was initialised before in
  // this process, kUnimplemented if this MPI has no MPI_THREAD_SERIALIZED, kUnavailable
  // if it fails. `clock` must outlive it.
  static absl::StatusOr<std::unique_ptr<MpiRuntime>> Create(Clock* clock);

  // Finalizes, unless a group has died: that would wait for ranks that are gone, and
  // mpirun ends the job anyway when this process exits.
  ~MpiRuntime();
  MpiRuntime(const MpiRuntime&) = delete;
  MpiRuntime& operator=(const MpiRuntime&) = delete;

  int world_rank() const { return world_rank_; }
  int world_size() const { return world_size_; }

  // Collective over the job; blocks without a deadline, so for start-up only. Processes
  // that give the same `color` form a group, in the order of their world ranks: color 0
  // everywhere makes the EP group, world_rank / tp the TP groups. The name is the same in
  // one group. kUnavailable if MPI fails.
  absl::StatusOr<std::unique_ptr<Communicator>> CreateGroup(std::string_view name,
                                                            int color,
                                                            const CommOptions& options);

  // Leaves the job in an orderly way: waits until all processes do so. Idempotent; no MPI
  // call may follow. After a fault only where all processes are known to live.
  // kUnavailable if MPI fails.
  absl::Status Finalize();

 private:
  MpiRuntime(Clock* clock, int world_rank, int world_size);

  Clock* const clock_;
  const int world_rank_;
  const int world_size_;
  const std::shared_ptr<MpiJob> job_;
  bool finalized_ = false;
};

}  // namespace tessera::worker

#endif  // TESSERA_WORKER_COMM_MPI_MPI_RUNTIME_H_
