// GpuFlag: the driver's under nvcc, its twin under the host compiler, as device.cuh has
// it of the rest of the runtime. Apart from that, since no kernel knows flags.
#ifndef TESSERA_KERNELS_CUDA_PRIMITIVES_DEVICE_FLAG_H_
#define TESSERA_KERNELS_CUDA_PRIMITIVES_DEVICE_FLAG_H_

#ifdef __CUDACC__
#include "kernels/cuda/runtime/cuda_flag.h"
#else
#include "kernels/cuda_sim/sim_flag.h"
#endif

namespace tessera::kernels::cuda {

#ifdef __CUDACC__
using GpuFlag = CudaFlag;
#else
using GpuFlag = cuda_sim::SimFlag;
#endif

}  // namespace tessera::kernels::cuda

#endif  // TESSERA_KERNELS_CUDA_PRIMITIVES_DEVICE_FLAG_H_
