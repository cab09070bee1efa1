// What device code and its launches are written against, under either compiler: Thread,
// Launch, TESSERA_DEVICE, and the runtime GpuMachine, GpuStream, GpuEvent, GpuGraph,
// GpuTileMap. nvcc takes the GPU's, the host compiler those of kernels/cuda_sim. This is
// the one place that asks which compiler it is
// (docs/design/0008-cuda-and-its-simulator.md).
//
// A kernel is a trivially copyable struct with `kName` and
//   TESSERA_DEVICE void operator()(Thread& thread) const;
// and, where registers must be kept few enough for one block of it, `kMaxThreads`.
#ifndef TESSERA_KERNELS_CUDA_PRIMITIVES_DEVICE_CUH_
#define TESSERA_KERNELS_CUDA_PRIMITIVES_DEVICE_CUH_

#include "kernels/cuda/primitives/device_types.h"

#ifdef __CUDACC__
#include "kernels/cuda/primitives/nvcc_launch.cuh"
#include "kernels/cuda/primitives/nvcc_thread.cuh"
#define TESSERA_DEVICE __device__
#define TESSERA_UNROLL _Pragma("unroll")
#else
#include "kernels/cuda_sim/sim_launch.h"
#include "kernels/cuda_sim/sim_thread.h"
#define TESSERA_DEVICE
#define TESSERA_UNROLL
#endif

namespace tessera::kernels::cuda {

#ifdef __CUDACC__
using Thread = NvccThread;
using GpuMachine = CudaMachine;
using GpuStream = CudaStream;
using GpuEvent = CudaEvent;
using GpuGraph = CudaGraph;
using GpuTileMap = CudaTileMap;
#else
using Thread = cuda_sim::SimThread;
using GpuMachine = cuda_sim::SimMachine;
using GpuStream = cuda_sim::SimStream;
using GpuEvent = cuda_sim::SimEvent;
using GpuGraph = cuda_sim::SimGraph;
using GpuTileMap = cuda_sim::SimTileMap;
using cuda_sim::Launch;
#endif

// Index of the thread in the whole grid, by x alone.
TESSERA_DEVICE inline int64_t GlobalIndex(Thread& thread) {
  return int64_t{thread.block_idx().x} * thread.block_dim().x + thread.thread_idx().x;
}

// Blocks of `block` threads that cover `count` of them.
constexpr uint32_t BlocksFor(int64_t count, int64_t block) {
  return static_cast<uint32_t>((count + block - 1) / block);
}

// A thread per value: kernels go on in strides of the grid where there are more.
constexpr LaunchConfig EachValueConfig(int64_t count, uint32_t block) {
  constexpr uint32_t kMaxBlocks = 65535;
  const int64_t blocks = (count + block - 1) / block;
  return {.grid = {blocks < kMaxBlocks ? static_cast<uint32_t>(blocks) : kMaxBlocks},
          .block = {block}};
}

}  // namespace tessera::kernels::cuda

#endif  // TESSERA_KERNELS_CUDA_PRIMITIVES_DEVICE_CUH_
