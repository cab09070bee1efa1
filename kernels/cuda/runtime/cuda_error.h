// What a call of the CUDA runtime returned, as a Status.
#ifndef TESSERA_KERNELS_CUDA_RUNTIME_CUDA_ERROR_H_
#define TESSERA_KERNELS_CUDA_RUNTIME_CUDA_ERROR_H_

#include <string_view>

#include "absl/status/status.h"
#include <cuda_runtime_api.h>

namespace tessera::kernels::cuda {

// OK; kNotFound, "no device: …", without a GPU or its driver; kResourceExhausted out of
// memory; kInvalidArgument for what the caller passed; kFailedPrecondition for what a
// capture forbids and for memory that is registered already; kUnimplemented for what the
// device or its driver cannot do; otherwise kInternal, after which the process can do
// nothing more with the device. `call` names the runtime's function.
absl::Status CudaStatus(cudaError_t error, std::string_view call);

}  // namespace tessera::kernels::cuda

#endif  // TESSERA_KERNELS_CUDA_RUNTIME_CUDA_ERROR_H_
