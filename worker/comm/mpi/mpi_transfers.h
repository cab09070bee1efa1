// MpiTransfers: the nonblocking sends and receives of one collective step, polled
// together. Every received length is compared with the expected one, so that ranks that
// disagree about a size notice.
#ifndef TESSERA_WORKER_COMM_MPI_MPI_TRANSFERS_H_
#define TESSERA_WORKER_COMM_MPI_MPI_TRANSFERS_H_

#include <cstddef>
#include <span>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include <mpi.h>

namespace tessera::worker {

// Step thread only. Allocates at construction only.
class MpiTransfers {
 public:
  // At most `capacity` transfers are pending at a time.
  MpiTransfers(MPI_Comm comm, int capacity);

  // Start a transfer; the buffer must stay alive until Test has said that all is done,
  // or, after Abandon, until the process ends. kInvalidArgument for a buffer of 2 GiB or
  // more.
  absl::Status Send(std::span<const std::byte> from, int to_rank, int tag);
  absl::Status Receive(std::span<std::byte> to, int from_rank, int tag);
  // Receives a message that was matched by a probe.
  absl::Status ReceiveMatched(std::span<std::byte> to, MPI_Message* message);

  // Makes progress; true when all transfers are done, which forgets them. kInternal if a
  // message had another length than its buffer; kUnavailable if MPI fails.
  absl::StatusOr<bool> Test();

  // Gives up what is pending: receives are cancelled, sends are left to MPI.
  void Abandon();

 private:
  static constexpr int kSend = -1;

  absl::Status Add(int code, const char* call, int expected_bytes);

  const MPI_Comm comm_;
  size_t num_pending_ = 0;
  std::vector<MPI_Request> requests_;
  std::vector<MPI_Status> statuses_;
  std::vector<int> expected_bytes_;  // kSend for a send
};

}  // namespace tessera::worker

#endif  // TESSERA_WORKER_COMM_MPI_MPI_TRANSFERS_H_
