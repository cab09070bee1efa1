// DeviceCollectives: one rank of a group of devices: its communicator, the stream that
// its operations go to, and memory of its device. What NCCL offers, and no more, so that
// a class over NCCL itself and one over its simulated twin stand behind the same calls.
// It knows no deadline and blocks nowhere: whoever calls it polls, and gives up.
//
// The host enqueues copies and operations; they run in the order of the calls, after
// those of this rank and together with those of its peers. An operation meets those of
// the other ranks as NCCL's do: sends and receives pair by pair, collectives one by one.
// They go to a stream of their own, which Poll asks about, or (ExchangeOn, AllGatherOn)
// between the ops of a backend's stream, and into the graph that it captures.
#ifndef TESSERA_KERNELS_RUNTIME_DEVICE_COLLECTIVES_H_
#define TESSERA_KERNELS_RUNTIME_DEVICE_COLLECTIVES_H_

#include <cstddef>
#include <span>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

#include "kernels/runtime/device_buffer.h"
#include "kernels/runtime/stream.h"

namespace tessera::kernels {

// Bytes of the device's memory that go to a peer or come from it.
struct DeviceTransfer {
  bool is_send = false;
  void* data = nullptr;  // a send's is only read
  size_t bytes = 0;      // the same on both sides, at least 1
  int peer = 0;          // another rank
};

// One thread uses it, the step thread of its rank. After an error only Abort may follow,
// and after Abort only the destructor, which waits for nothing but this rank's copies.
class DeviceCollectives {
 public:
  virtual ~DeviceCollectives() = default;

  virtual int rank() const = 0;
  virtual int size() const = 0;

  // Whether the group is formed and all that was enqueued has run. To be asked until it
  // is true before the next call of this class, but for CopyIn; it makes progress.
  // kAborted: a peer has left; kUnavailable, kInternal: the transport or the device
  // failed.
  virtual absl::StatusOr<bool> Poll() = 0;

  // Zeroed: what follows an operation that was aborted runs on what is there. Start-up
  // only. kResourceExhausted. The memory may outlive this object.
  virtual absl::StatusOr<DeviceBuffer> Allocate(size_t bytes) = 0;
  // `host` may be memory of the backend's Allocate, and is read by the time that Poll
  // says true.
  virtual absl::Status CopyIn(std::span<const std::byte> host, void* device) = 0;
  // After Poll has said true: `host`, likewise, is written when it returns.
  virtual absl::Status CopyOut(const void* device, std::span<std::byte> host) = 0;

  // All of them at once. Two transfers of one call do not overlap, unless both send.
  virtual absl::Status Exchange(std::span<const DeviceTransfer> transfers) = 0;
  // recv: [size, bytes]; `send` may be its own place in it.
  virtual absl::Status AllGather(const void* send, void* recv, size_t bytes) = 0;
  virtual absl::Status Broadcast(void* data, size_t bytes, int root) = 0;

  // The same, once the group is formed, in the order of `stream`, of the backend that is
  // on this rank's device. The host waits for that stream before it goes back to the
  // operations above. Nothing of this class and nothing for the stream may follow until
  // PollEnqueued says true.
  virtual absl::Status ExchangeOn(Stream& stream,
                                  std::span<const DeviceTransfer> transfers) = 0;
  virtual absl::Status AllGatherOn(Stream& stream, const void* send, void* recv,
                                   size_t bytes) = 0;
  // Whether the last of these is in its stream, where it may wait for its peers; it makes
  // progress. Errors are Poll's, but kAborted also where all that was enqueued has run.
  virtual absl::StatusOr<bool> PollEnqueued() = 0;

  // What is under way ends without a result. Other ranks may hear of it, or not.
  // Idempotent.
  virtual void Abort() = 0;
};

}  // namespace tessera::kernels

#endif  // TESSERA_KERNELS_RUNTIME_DEVICE_COLLECTIVES_H_
