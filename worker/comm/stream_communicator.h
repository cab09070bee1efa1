// StreamCommunicator: collectives of a group in the order of a device's stream, between
// the ops that make their operands and those that read what they give. The host enqueues
// them and goes on; a graph can capture them.
//
// Contract
//   - As Communicator's: every rank calls the same in the same order, from its step
//     thread, and the results are the bits of Communicator's.
//   - Buffers are memory of the backend whose stream it is. They belong to the collective
//     until the stream is done with it.
//   - What is enqueued waits in the stream for the other ranks, one of which may be gone.
//     So the host waits for such a stream with StreamWait (stream_wait.h) alone, before
//     it reads from the device and before the group's other collectives.
//   - A call may have to wait for other ranks to be enqueued at all, as NCCL's first ones
//     do: kDeadlineExceeded after the group's timeout. Other errors are Communicator's.
#ifndef TESSERA_WORKER_COMM_STREAM_COMMUNICATOR_H_
#define TESSERA_WORKER_COMM_STREAM_COMMUNICATOR_H_

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

#include "absl/status/status.h"
#include "absl/time/time.h"

#include "kernels/kernel_backend.h"
#include "kernels/runtime/device_collectives.h"
#include "kernels/runtime/stream.h"
#include "kernels/tensor_view.h"

namespace tessera::worker {

class StreamCommunicator {
 public:
  // The backend and the stream of this rank's device.
  struct Place {
    kernels::KernelBackend* backend = nullptr;
    kernels::Stream* stream = nullptr;
  };

  virtual ~StreamCommunicator() = default;

  virtual int rank() const = 0;
  virtual int size() const = 0;

  // Communicator::AllReduceSum of a tensor of the backend's activation type. All bits are
  // the same but for those of a NaN, which is one on every rank.
  virtual absl::Status AllReduceSum(const Place& place, kernels::TensorView x) = 0;
  // Communicator::AllGather. Parts that differ in size are whole values of the activation
  // type.
  virtual absl::Status AllGather(const Place& place, std::span<const std::byte> send,
                                 std::span<const int64_t> counts,
                                 std::span<std::byte> recv) = 0;

  // What the host has spent inside of these calls, but for waiting for the stream:
  // nothing of what the device spends.
  virtual absl::Duration host_time() const = 0;
};

// One that does not go over the host: of a Communicator over devices.
class DeviceCommunicator : public StreamCommunicator {
 public:
  // Transfers to and from each peer, all of them at once; what two ranks send each other
  // has the same length on both sides. Two of a call do not overlap, unless both send.
  virtual absl::Status Exchange(kernels::Stream& stream,
                                std::span<const kernels::DeviceTransfer> transfers) = 0;

  // Whether the group is alive, as far as this rank has heard: kAborted if not.
  virtual absl::Status Check() = 0;
  // What of this rank's is enqueued ends without a result, and no other call may follow.
  // The group hears of `reason`. Idempotent.
  virtual void End(std::string_view reason) = 0;
  // Of a call, and of the wait for what was enqueued.
  virtual absl::Duration timeout() const = 0;
};

}  // namespace tessera::worker

#endif  // TESSERA_WORKER_COMM_STREAM_COMMUNICATOR_H_
