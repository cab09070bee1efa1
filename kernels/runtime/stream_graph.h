// StreamGraph: what was enqueued on a Stream while it was captured, to be launched again
// and again as one. A graph has copies of what its ops were given by value (shapes,
// addresses, constants), so that each launch works on the same memory: what the memory
// holds may change between launches, where it lies may not.
#ifndef TESSERA_KERNELS_RUNTIME_STREAM_GRAPH_H_
#define TESSERA_KERNELS_RUNTIME_STREAM_GRAPH_H_

#include <cstdint>
#include <memory>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"

#include "kernels/kernel_backend.h"
#include "kernels/runtime/stream.h"

namespace tessera::kernels {

// The step thread. It outlives its launches, and the memory that its ops were given
// outlives it; it goes before its backend.
class StreamGraph {
 public:
  virtual ~StreamGraph() = default;

  // Enqueues it once on a stream of its backend. Never waits. Errors of the ops come from
  // Stream::Synchronize, as if each had been enqueued.
  virtual absl::Status Launch(Stream& stream) = 0;

  // Kernels, copies, memsets, collectives and waits for flags.
  virtual int64_t num_nodes() const = 0;
  // Of the device, as far as it says. Another user of the device may be counted as well.
  virtual int64_t device_bytes() const = 0;
};

// What a backend implements, beside KernelBackend, whose streams can be captured.
class StreamGraphFactory {
 public:
  virtual ~StreamGraphFactory() = default;

  // Start-up. Runs `enqueue`, which enqueues on `stream`; nothing of it is executed.
  // Errors: of `enqueue` and of what it enqueued; kFailedPrecondition or kInternal where
  // it did what a capture does not allow (Stream::Synchronize, an Upload or Download of
  // host memory that is not pinned, an allocation). In each case the stream is as before.
  virtual absl::StatusOr<std::unique_ptr<StreamGraph>> Capture(
      Stream& stream, absl::FunctionRef<absl::Status()> enqueue) = 0;
};

// Null: streams of this backend have no graphs.
inline StreamGraphFactory* StreamGraphsOf(KernelBackend* backend) {
  return dynamic_cast<StreamGraphFactory*>(backend);
}

}  // namespace tessera::kernels

#endif  // TESSERA_KERNELS_RUNTIME_STREAM_GRAPH_H_
