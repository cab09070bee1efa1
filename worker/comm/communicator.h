// Communicator: collectives of one named group of ranks (a TP group, or the EP group of
// all ranks). Implementations: in-process threads, MPI; NCCL follows. tests/conformance
// runs one suite on all.
//
// Contract
//   - Every rank of the group calls the same collectives in the same order, from its step
//   thread.
//   - Every call has the deadline of CommOptions::timeout, counted from its start:
//   kDeadlineExceeded
//     then. After any error, and after Abort, the group is dead: every later call returns
//     kAborted at once, on every rank that can still be reached. A dead group is never
//     repaired, only re-formed.
//     A rank that comes late may still finish one call whose parts had all been sent.
//   - Buffers are host memory that the step thread owns; a call returns when its buffers
//   may be reused.
//   - An argument that breaks a rule below is kInvalidArgument, and kills the group like
//   any error.
//   - Results are the same bits on every implementation.
#ifndef TESSERA_WORKER_COMM_COMMUNICATOR_H_
#define TESSERA_WORKER_COMM_COMMUNICATOR_H_

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

#include "absl/status/status.h"
#include "absl/time/time.h"

#include "kernels/tensor_view.h"

namespace tessera::worker {

class DeviceCommunicator;

struct CommOptions {
  absl::Duration timeout = absl::Seconds(30);
};

// What a rank has spent in a group's collectives since it was made, for StepCounters.
// Bytes are the payload of the calls: of AllReduceSum its tensor, of the others what this
// rank received.
struct CommStats {
  uint64_t calls = 0;
  uint64_t bytes = 0;
  uint64_t messages = 0;  // of AllToAllV, to other ranks; an empty part is one as well
  absl::Duration time;
};

// Step thread only, except Abort, which any thread may call.
class Communicator {
 public:
  virtual ~Communicator() = default;

  virtual int rank() const = 0;
  virtual int size() const = 0;
  // "tp0", "ep": for errors and metrics.
  virtual std::string_view name() const = 0;

  // x (contiguous F32 or F64) becomes the sum over the ranks as the fixed binary tree:
  // rank i holds the sum of a subtree of the 8 leaves, and neighbours are added pairwise,
  // ((0+1)+(2+3))+… The size of the group must be a power of two. Every rank gets the
  // same bits.
  virtual absl::Status AllReduceSum(kernels::TensorView x) = 0;

  // The concatenation of every rank's bytes, in rank order. counts[i] = bytes of rank i,
  // known to all; send.size() == counts[rank()], recv.size() == sum of counts. send may
  // lie inside recv at its own place.
  virtual absl::Status AllGather(std::span<const std::byte> send,
                                 std::span<const int64_t> counts,
                                 std::span<std::byte> recv) = 0;

  // Rank i's part of `send` (send_counts[i] bytes, in rank order) goes to rank i.
  // recv_counts (out) says how many bytes came from each rank; they lie in recv in rank
  // order. kInternal if recv is too small (on all ranks that notice; the group is then
  // dead).
  virtual absl::Status AllToAllV(std::span<const std::byte> send,
                                 std::span<const int64_t> send_counts,
                                 std::span<std::byte> recv,
                                 std::span<int64_t> recv_counts) = 0;

  // root's bytes to everyone.
  virtual absl::Status Broadcast(std::span<std::byte> data, int root) = 0;

  virtual absl::Status Barrier() = 0;

  virtual CommStats stats() const { return {}; }

  // The same group's collectives in the order of a device's stream
  // (stream_communicator.h), or null: where they would go over the host. Between the two
  // the host waits for the stream.
  virtual DeviceCommunicator* on_stream() { return nullptr; }

  // Makes every pending and later call fail with kAborted. Idempotent; any thread.
  virtual void Abort(std::string_view reason) = 0;
};

}  // namespace tessera::worker

#endif  // TESSERA_WORKER_COMM_COMMUNICATOR_H_
