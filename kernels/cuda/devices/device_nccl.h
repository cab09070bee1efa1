// GpuNcclComm and GpuNcclId: NCCL's under nvcc, their twins under the host compiler, as
// device.cuh has it of the rest of the runtime. Apart from that, since a build for GPUs
// may do without NCCL.
#ifndef TESSERA_KERNELS_CUDA_DEVICES_DEVICE_NCCL_H_
#define TESSERA_KERNELS_CUDA_DEVICES_DEVICE_NCCL_H_

#ifdef __CUDACC__
#include "kernels/cuda/runtime/cuda_nccl.h"
#else
#include "kernels/cuda_sim/sim_nccl.h"
#endif

namespace tessera::kernels::cuda {

#ifdef __CUDACC__
using GpuNcclComm = CudaNcclComm;
using GpuNcclId = CudaNcclId;
#else
using GpuNcclComm = cuda_sim::SimNcclComm;
using GpuNcclId = cuda_sim::SimNcclId;
#endif

}  // namespace tessera::kernels::cuda

#endif  // TESSERA_KERNELS_CUDA_DEVICES_DEVICE_NCCL_H_
