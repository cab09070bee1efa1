// Launch on a GPU.
#ifndef TESSERA_KERNELS_CUDA_PRIMITIVES_NVCC_LAUNCH_CUH_
#define TESSERA_KERNELS_CUDA_PRIMITIVES_NVCC_LAUNCH_CUH_

#include <type_traits>

#include <cuda_runtime.h>

#include "kernels/cuda/primitives/device_types.h"
#include "kernels/cuda/primitives/nvcc_thread.cuh"
#include "kernels/cuda/runtime/cuda_error.h"
#include "kernels/cuda/runtime/cuda_stream.h"

namespace tessera::kernels::cuda {

template <typename Kernel>
__global__ void RunKernel(const __grid_constant__ Kernel kernel) {
  NvccThread thread;
  kernel(thread);
}

template <typename Kernel>
concept HasMaxThreads = requires {
  Kernel::kMaxThreads;
};

// The same for a block of known size, all of whose registers must fit.
template <HasMaxThreads Kernel>
__global__ void __launch_bounds__(Kernel::kMaxThreads, 1)
    BoundedRunKernel(const __grid_constant__ Kernel kernel) {
  NvccThread thread;
  kernel(thread);
}

template <typename Kernel>
constexpr auto EntryOf() {
  if constexpr (HasMaxThreads<Kernel>) {
    return &BoundedRunKernel<Kernel>;
  } else {
    return &RunKernel<Kernel>;
  }
}

// Does not wait. An error stays with the stream: its next Synchronize returns it.
template <typename Kernel>
void Launch(CudaStream& stream, const LaunchConfig& config, const Kernel& kernel) {
  static_assert(std::is_trivially_copyable_v<Kernel>);
  static_assert(sizeof(Kernel) <= 4096, "what a launch can pass");
  stream.Note(stream.Use());
  const dim3 grid(config.grid.x, config.grid.y, config.grid.z);
  const dim3 block(config.block.x, config.block.y, config.block.z);
  cudaError_t error = cudaSuccess;
  if (config.shared_bytes > 48 * 1024) {  // more must be asked for by name
    error = cudaFuncSetAttribute(EntryOf<Kernel>(),
                                 cudaFuncAttributeMaxDynamicSharedMemorySize,
                                 static_cast<int>(config.shared_bytes));
  }
  if (error == cudaSuccess) {
    EntryOf<Kernel>()<<<grid, block, config.shared_bytes, stream.native()>>>(kernel);
    error = cudaGetLastError();
  }
  if (error != cudaSuccess) {
    stream.Note(CudaStatus(error, Kernel::kName));
  }
}

}  // namespace tessera::kernels::cuda

#endif  // TESSERA_KERNELS_CUDA_PRIMITIVES_NVCC_LAUNCH_CUH_
