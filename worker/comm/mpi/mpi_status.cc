#include "worker/comm/mpi/mpi_status.h"

#include <mpi.h>

#include "common/status.h"

namespace tessera::worker {

absl::Status MpiStatus(int code, std::string_view call) {
  if (code == MPI_SUCCESS) {
    return absl::OkStatus();
  }
  char text[MPI_MAX_ERROR_STRING] = "";
  int length = 0;
  if (MPI_Error_string(code, text, &length) != MPI_SUCCESS) {
    length = 0;
  }
  return UnavailableF("{}: mpi error {}: {}", call, code,
                      std::string_view(text, static_cast<size_t>(length)));
}

}  // namespace tessera::worker
