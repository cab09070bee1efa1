// Stream: an in-order queue of ops on one device. Ops are enqueued; results may be read
// by the host after Synchronize. On the CPU backends an op runs when it is enqueued.
#ifndef TESSERA_KERNELS_RUNTIME_STREAM_H_
#define TESSERA_KERNELS_RUNTIME_STREAM_H_

#include "absl/status/status.h"
#include "absl/status/statusor.h"

#include "common/status_macros.h"

namespace tessera::kernels {

// External synchronisation: one thread, the step thread, uses a stream.
class Stream {
 public:
  virtual ~Stream() = default;

  // Blocks until all enqueued ops are done. kInternal if one of them faulted; the worker
  // is then poisoned and must exit.
  virtual absl::Status Synchronize() = 0;

  // Whether all enqueued ops are done, without waiting: for whoever has to give up where
  // Synchronize would wait for ever, as for a collective that another rank never enters.
  // Errors are Synchronize's. Here: of a stream whose ops run when they are enqueued.
  virtual absl::StatusOr<bool> Poll() {
    TESSERA_RETURN_IF_ERROR(Synchronize());
    return true;
  }
};

}  // namespace tessera::kernels

#endif  // TESSERA_KERNELS_RUNTIME_STREAM_H_
