// MPI return codes as Status. With TESSERA_RETURN_IF_ERROR this is the only way in which
// worker/comm/mpi reads a return code; communicators must have MPI_ERRORS_RETURN, or no
// code is ever returned.
#ifndef TESSERA_WORKER_COMM_MPI_MPI_STATUS_H_
#define TESSERA_WORKER_COMM_MPI_MPI_STATUS_H_

#include <string_view>

#include "absl/status/status.h"

namespace tessera::worker {

// OK for MPI_SUCCESS; else kUnavailable with the call's name and MPI's own text: at run
// time an MPI error means that a peer or the way to it is gone.
absl::Status MpiStatus(int code, std::string_view call);

}  // namespace tessera::worker

#endif  // TESSERA_WORKER_COMM_MPI_MPI_STATUS_H_
