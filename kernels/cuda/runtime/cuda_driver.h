// Calls of the CUDA driver that the runtime has no twin of. The driver is not linked: the
// runtime knows where it is, so that a build starts where there is none.
#ifndef TESSERA_KERNELS_CUDA_RUNTIME_CUDA_DRIVER_H_
#define TESSERA_KERNELS_CUDA_RUNTIME_CUDA_DRIVER_H_

#include "absl/status/statusor.h"

namespace tessera::kernels::cuda {

// The call as CUDA 12 has it. kInternal: the driver has no such call; otherwise as
// CudaStatus. Thread-safe.
absl::StatusOr<void*> FindDriverCall(const char* name);

// The same of its type, decltype(&call) of cuda.h.
template <typename Call>
absl::StatusOr<Call> DriverCall(const char* name) {
  const absl::StatusOr<void*> entry = FindDriverCall(name);
  if (!entry.ok()) {
    return entry.status();
  }
  return reinterpret_cast<Call>(*entry);
}

}  // namespace tessera::kernels::cuda

#endif  // TESSERA_KERNELS_CUDA_RUNTIME_CUDA_DRIVER_H_
