#include "worker/comm/mpi/mpi_transfers.h"

#include <climits>

#include "common/check.h"
#include "common/status.h"
#include "common/status_macros.h"
#include "worker/comm/mpi/mpi_status.h"

namespace tessera::worker {
namespace {

// MPI counts bytes with an int.
absl::StatusOr<int> ByteCount(size_t bytes) {
  if (bytes > static_cast<size_t>(INT_MAX)) {
    return InvalidArgumentF("a transfer of {} bytes, expected less than 2 GiB", bytes);
  }
  return static_cast<int>(bytes);
}

}  // namespace

MpiTransfers::MpiTransfers(MPI_Comm comm, int capacity)
    : comm_(comm),
      requests_(static_cast<size_t>(capacity), MPI_REQUEST_NULL),
      statuses_(static_cast<size_t>(capacity)),
      expected_bytes_(static_cast<size_t>(capacity)) {}

absl::Status MpiTransfers::Add(int code, const char* call, int expected_bytes) {
  TESSERA_RETURN_IF_ERROR(MpiStatus(code, call));
  expected_bytes_[num_pending_++] = expected_bytes;
  return absl::OkStatus();
}

absl::Status MpiTransfers::Send(std::span<const std::byte> from, int to_rank, int tag) {
  TESSERA_CHECK_LT(num_pending_, requests_.size());
  TESSERA_ASSIGN_OR_RETURN(const int bytes, ByteCount(from.size()));
  return Add(MPI_Isend(from.data(), bytes, MPI_BYTE, to_rank, tag, comm_,
                       &requests_[num_pending_]),
             "MPI_Isend", kSend);
}

absl::Status MpiTransfers::Receive(std::span<std::byte> to, int from_rank, int tag) {
  TESSERA_CHECK_LT(num_pending_, requests_.size());
  TESSERA_ASSIGN_OR_RETURN(const int bytes, ByteCount(to.size()));
  return Add(MPI_Irecv(to.data(), bytes, MPI_BYTE, from_rank, tag, comm_,
                       &requests_[num_pending_]),
             "MPI_Irecv", bytes);
}

absl::Status MpiTransfers::ReceiveMatched(std::span<std::byte> to, MPI_Message* message) {
  TESSERA_CHECK_LT(num_pending_, requests_.size());
  TESSERA_ASSIGN_OR_RETURN(const int bytes, ByteCount(to.size()));
  return Add(MPI_Imrecv(to.data(), bytes, MPI_BYTE, message, &requests_[num_pending_]),
             "MPI_Imrecv", bytes);
}

absl::StatusOr<bool> MpiTransfers::Test() {
  if (num_pending_ == 0) {
    return true;
  }
  int done = 0;
  TESSERA_RETURN_IF_ERROR(
      MpiStatus(MPI_Testall(static_cast<int>(num_pending_), requests_.data(), &done,
                            statuses_.data()),
                "MPI_Testall"));
  if (done == 0) {
    return false;
  }
  const size_t num_done = num_pending_;
  num_pending_ = 0;
  for (size_t i = 0; i < num_done; ++i) {
    if (expected_bytes_[i] == kSend) {
      continue;
    }
    int bytes = 0;
    TESSERA_RETURN_IF_ERROR(
        MpiStatus(MPI_Get_count(&statuses_[i], MPI_BYTE, &bytes), "MPI_Get_count"));
    if (bytes != expected_bytes_[i]) {
      return InternalF("{} bytes from rank {}, expected {}", bytes,
                       statuses_[i].MPI_SOURCE, expected_bytes_[i]);
    }
  }
  return true;
}

void MpiTransfers::Abandon() {
  // Return codes are of no use here: the group is dead whatever they say.
  for (size_t i = 0; i < num_pending_; ++i) {
    if (requests_[i] == MPI_REQUEST_NULL) {
      continue;
    }
    if (expected_bytes_[i] != kSend) {
      // A receive that no message has matched is cancelled at once.
      static_cast<void>(MPI_Cancel(&requests_[i]));
      int done = 0;
      static_cast<void>(MPI_Test(&requests_[i], &done, MPI_STATUS_IGNORE));
    }
    if (requests_[i] != MPI_REQUEST_NULL) {
      static_cast<void>(MPI_Request_free(&requests_[i]));
    }
  }
  num_pending_ = 0;
}

}  // namespace tessera::worker
