// What the backends that compute on the host's own memory share: aligned allocation, a
// stream that has nothing to wait for, and copies between dense host arrays and strided
// views.
#ifndef TESSERA_KERNELS_RUNTIME_HOST_RUNTIME_H_
#define TESSERA_KERNELS_RUNTIME_HOST_RUNTIME_H_

#include <cstddef>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

#include "kernels/runtime/device_buffer.h"
#include "kernels/runtime/stream.h"
#include "kernels/tensor_view.h"

namespace tessera::kernels {

// Zeroed, 64-byte aligned; from 2 MiB on, aligned to a huge page and advised to be one.
// kResourceExhausted if the system has no such memory.
absl::StatusOr<DeviceBuffer> AllocateHost(size_t bytes);

// Ops ran when they were enqueued, so Synchronize has nothing to do.
class HostStream : public Stream {
 public:
  absl::Status Synchronize() override { return absl::OkStatus(); }
};

// Copies a dense row-major array into `view`, and back. Any dtype and strides.
void CopyDenseToView(const void* dense, TensorView view);
void CopyViewToDense(TensorView view, void* dense);

}  // namespace tessera::kernels

#endif  // TESSERA_KERNELS_RUNTIME_HOST_RUNTIME_H_
