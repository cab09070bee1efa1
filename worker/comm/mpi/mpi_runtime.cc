#include "worker/comm/mpi/mpi_runtime.h"

#include <utility>

#include <mpi.h>

#include "common/log.h"
#include "common/status.h"
#include "common/status_macros.h"
#include "worker/comm/mpi/mpi_communicator.h"
#include "worker/comm/mpi/mpi_status.h"

namespace tessera::worker {

MpiRuntime::MpiRuntime(Clock* clock, int world_rank, int world_size)
    : clock_(clock),
      world_rank_(world_rank),
      world_size_(world_size),
      job_(std::make_shared<MpiJob>()) {}

absl::StatusOr<std::unique_ptr<MpiRuntime>> MpiRuntime::Create(Clock* clock) {
  int initialized = 0;
  TESSERA_RETURN_IF_ERROR(MpiStatus(MPI_Initialized(&initialized), "MPI_Initialized"));
  if (initialized != 0) {
    return absl::FailedPreconditionError("mpi was initialised before in this process");
  }
  int provided = MPI_THREAD_SINGLE;
  TESSERA_RETURN_IF_ERROR(
      MpiStatus(MPI_Init_thread(nullptr, nullptr, MPI_THREAD_SERIALIZED, &provided),
                "MPI_Init_thread"));
  if (provided < MPI_THREAD_SERIALIZED) {
    return absl::UnimplementedError("this mpi lacks MPI_THREAD_SERIALIZED");
  }
  TESSERA_RETURN_IF_ERROR(
      MpiStatus(MPI_Comm_set_errhandler(MPI_COMM_WORLD, MPI_ERRORS_RETURN),
                "MPI_Comm_set_errhandler"));
  int rank = 0;
  int size = 0;
  TESSERA_RETURN_IF_ERROR(
      MpiStatus(MPI_Comm_rank(MPI_COMM_WORLD, &rank), "MPI_Comm_rank"));
  TESSERA_RETURN_IF_ERROR(
      MpiStatus(MPI_Comm_size(MPI_COMM_WORLD, &size), "MPI_Comm_size"));
  return std::unique_ptr<MpiRuntime>(new MpiRuntime(clock, rank, size));
}

MpiRuntime::~MpiRuntime() {
  if (finalized_) {
    return;
  }
  if (job_->faulted.load()) {
    log::Warning("worker", "a group died; leaving mpi without finalizing",
                 {{"rank", world_rank_}});
    return;
  }
  const absl::Status status = Finalize();
  if (!status.ok()) {
    log::Warning("worker", "mpi did not finalize", {{"error", status.ToString()}});
  }
}

absl::Status MpiRuntime::Finalize() {
  if (finalized_) {
    return absl::OkStatus();
  }
  finalized_ = true;
  return MpiStatus(MPI_Finalize(), "MPI_Finalize");
}

absl::StatusOr<std::unique_ptr<Communicator>> MpiRuntime::CreateGroup(
    std::string_view name, int color, const CommOptions& options) {
  MPI_Comm comm = MPI_COMM_NULL;
  TESSERA_RETURN_IF_ERROR(MpiStatus(
      MPI_Comm_split(MPI_COMM_WORLD, color, world_rank_, &comm), "MPI_Comm_split"));
  TESSERA_RETURN_IF_ERROR(MpiStatus(MPI_Comm_set_errhandler(comm, MPI_ERRORS_RETURN),
                                    "MPI_Comm_set_errhandler"));
  return MakeMpiCommunicator(name, comm, options, clock_, job_);
}

}  // namespace tessera::worker
