// StreamEvent: an order between two streams of a device: what one has enqueued so far
// comes before what another enqueues from now on. For who has work on more than one.
#ifndef TESSERA_KERNELS_RUNTIME_STREAM_EVENT_H_
#define TESSERA_KERNELS_RUNTIME_STREAM_EVENT_H_

#include <memory>

#include "absl/status/status.h"

#include "kernels/kernel_backend.h"
#include "kernels/runtime/stream.h"

namespace tessera::kernels {

// The step thread, and streams of its backend, which it goes before. Neither call waits.
// kInternal: the device failed.
class StreamEvent {
 public:
  virtual ~StreamEvent() = default;

  // From here on it stands behind all that is enqueued on `stream`, and nowhere else;
  // waits of before stay as they are.
  virtual absl::Status Record(Stream& stream) = 0;

  // What is enqueued on `stream` from here on comes after the last Record; nothing if
  // there was none. Where that is part of a capture (stream_graph.h), `stream` becomes a
  // part of it, too: by an event of its own the captured stream has to wait for it before
  // the capture ends. kFailedPrecondition: another capture, or one that has ended.
  virtual absl::Status Wait(Stream& stream) = 0;
};

// What a backend implements, beside KernelBackend, whose ops are asynchronous.
class StreamEventFactory {
 public:
  virtual ~StreamEventFactory() = default;

  virtual std::unique_ptr<StreamEvent> CreateEvent() = 0;
};

// Null: ops of this backend run as they are enqueued, so that all order is given.
inline StreamEventFactory* StreamEventsOf(KernelBackend* backend) {
  return dynamic_cast<StreamEventFactory*>(backend);
}

}  // namespace tessera::kernels

#endif  // TESSERA_KERNELS_RUNTIME_STREAM_EVENT_H_
