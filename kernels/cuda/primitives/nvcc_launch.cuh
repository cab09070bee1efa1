// Launch on a GPU, and the stream that it goes to.
#ifndef TESSERA_KERNELS_CUDA_PRIMITIVES_NVCC_LAUNCH_CUH_
#define TESSERA_KERNELS_CUDA_PRIMITIVES_NVCC_LAUNCH_CUH_

#include <type_traits>

#include <cuda_runtime.h>

#include "kernels/cuda/primitives/device_types.h"
#include "kernels/cuda/primitives/nvcc_thread.cuh"

namespace tessera::kernels::cuda {

// A CUDA stream with the first error of its launches. Owned by whoever made the stream.
struct NvccStream {
  cudaStream_t stream = nullptr;
  cudaError_t error = cudaSuccess;
};

template <typename Kernel>
__global__ void RunKernel(const __grid_constant__ Kernel kernel) {
  NvccThread thread;
  kernel(thread);
}

// Does not wait. An error stays with the stream, whose owner looks at it when it
// synchronises.
template <typename Kernel>
void Launch(NvccStream& stream, const LaunchConfig& config, const Kernel& kernel) {
  static_assert(std::is_trivially_copyable_v<Kernel>);
  static_assert(sizeof(Kernel) <= 4096, "what a launch can pass");
  const dim3 grid(config.grid.x, config.grid.y, config.grid.z);
  const dim3 block(config.block.x, config.block.y, config.block.z);
  cudaError_t error = cudaSuccess;
  if (config.shared_bytes > 48 * 1024) {  // more must be asked for by name
    error = cudaFuncSetAttribute(RunKernel<Kernel>,
                                 cudaFuncAttributeMaxDynamicSharedMemorySize,
                                 static_cast<int>(config.shared_bytes));
  }
  if (error == cudaSuccess) {
    RunKernel<<<grid, block, config.shared_bytes, stream.stream>>>(kernel);
    error = cudaGetLastError();
  }
  stream.error = stream.error == cudaSuccess ? error : stream.error;
}

}  // namespace tessera::kernels::cuda

#endif  // TESSERA_KERNELS_CUDA_PRIMITIVES_NVCC_LAUNCH_CUH_
