#include "kernels/cuda/runtime/cuda_driver.h"

#include <cuda_runtime_api.h>

#include "common/status.h"
#include "common/status_macros.h"
#include "kernels/cuda/runtime/cuda_error.h"

namespace tessera::kernels::cuda {

absl::StatusOr<void*> FindDriverCall(const char* name) {
  constexpr unsigned kCuda12 = 12000;  // the version whose signatures cuda.h has
  void* entry = nullptr;
  cudaDriverEntryPointQueryResult found = cudaDriverEntryPointSymbolNotFound;
  TESSERA_RETURN_IF_ERROR(CudaStatus(
      cudaGetDriverEntryPointByVersion(name, &entry, kCuda12, cudaEnableDefault, &found),
      "cudaGetDriverEntryPointByVersion"));
  if (found != cudaDriverEntryPointSuccess || entry == nullptr) {
    return InternalF("the driver has no {}", name);
  }
  return entry;
}

}  // namespace tessera::kernels::cuda
