// NvccThread: what device code sees of its thread on a GPU. The same calls as SimThread
// of kernels/cuda_sim, which explains them; here nothing is checked.
#ifndef TESSERA_KERNELS_CUDA_PRIMITIVES_NVCC_THREAD_CUH_
#define TESSERA_KERNELS_CUDA_PRIMITIVES_NVCC_THREAD_CUH_

#include <cstdint>
#include <type_traits>

#include "kernels/cuda/primitives/device_types.h"
#include "kernels/cuda/primitives/nvcc_async.cuh"
#include "kernels/cuda/primitives/nvcc_bf16.cuh"

namespace tessera::kernels::cuda {

extern __shared__ __align__(1024) unsigned char tessera_dynamic_shared[];

class NvccThread : public NvccAsync, public NvccBF16 {
 public:
  __device__ Dim3 block_idx() const { return {blockIdx.x, blockIdx.y, blockIdx.z}; }
  __device__ Dim3 thread_idx() const { return {threadIdx.x, threadIdx.y, threadIdx.z}; }
  __device__ Dim3 block_dim() const { return {blockDim.x, blockDim.y, blockDim.z}; }
  __device__ Dim3 grid_dim() const { return {gridDim.x, gridDim.y, gridDim.z}; }
  __device__ uint32_t linear_thread() const {
    return threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z);
  }
  __device__ uint32_t lane() const { return linear_thread() % kWarpSize; }

  template <typename T, template <typename> typename Span>
  __device__ std::remove_const_t<T> Load(Span<T> x, int64_t i) const {
    return x.data[i];
  }
  template <typename T, template <typename> typename Span>
  __device__ void Store(Span<T> x, int64_t i, std::type_identity_t<T> value) const {
    x.data[i] = value;
  }
  template <int N, typename T, template <typename> typename Span>
  __device__ Vector<std::remove_const_t<T>, N> LoadVector(Span<T> x, int64_t i) const {
    return *reinterpret_cast<const Vector<std::remove_const_t<T>, N>*>(x.data + i);
  }
  template <typename T, int N, template <typename> typename Span>
  __device__ void StoreVector(Span<T> x, int64_t i, const Vector<T, N>& value) const {
    *reinterpret_cast<Vector<T, N>*>(x.data + i) = value;
  }
  template <typename T, template <typename> typename Span>
  __device__ T AtomicAdd(Span<T> x, int64_t i, std::type_identity_t<T> value) const {
    return atomicAdd(x.data + i, value);
  }
  template <typename T, template <typename> typename Span>
  __device__ T AtomicMax(Span<T> x, int64_t i, std::type_identity_t<T> value) const {
    return atomicMax(x.data + i, value);
  }
  template <typename T>
  __device__ T Read(const CapturedValue<T>& captured) const {
    return captured.value;
  }

  __device__ uint32_t SelectBytes(uint32_t low, uint32_t high, uint32_t selector) const {
    return __byte_perm(low, high, selector);
  }

  // By sincospi, which needs no reduction for large angles.
  __device__ void SineCosineOfEighth(double angle, double* sine, double* cosine) const {
    constexpr double kOneOverPi = 0x1.45f306dc9c883p-2;
    sincospi(angle * kOneOverPi, sine, cosine);
  }

  template <typename T, int N, int kId>
  __device__ SharedSpan<T> StaticShared() const {
    __shared__ T storage[N];
    return {storage, N};
  }
  template <typename T>
  __device__ SharedSpan<T> DynamicShared(uint32_t begin_bytes = 0) const {
    uint32_t bytes = 0;
    asm("mov.u32 %0, %%dynamic_smem_size;" : "=r"(bytes));
    return {reinterpret_cast<T*>(tessera_dynamic_shared + begin_bytes),
            (int64_t{bytes} - begin_bytes) / int64_t{sizeof(T)}};
  }

  __device__ void SyncBlock() const { __syncthreads(); }
  __device__ void SyncWarp(uint32_t mask = kFullWarp) const { __syncwarp(mask); }
  template <typename T>
  __device__ T Shuffle(T value, uint32_t source, uint32_t mask = kFullWarp) const {
    return __shfl_sync(mask, value, static_cast<int>(source));
  }
  template <typename T>
  __device__ T ShuffleDown(T value, uint32_t delta, uint32_t mask = kFullWarp) const {
    return __shfl_down_sync(mask, value, delta);
  }
  template <typename T>
  __device__ T ShuffleXor(T value, uint32_t lanes, uint32_t mask = kFullWarp) const {
    return __shfl_xor_sync(mask, value, static_cast<int>(lanes));
  }
  __device__ uint32_t Ballot(bool predicate, uint32_t mask = kFullWarp) const {
    return __ballot_sync(mask, predicate);
  }
};

}  // namespace tessera::kernels::cuda

#endif  // TESSERA_KERNELS_CUDA_PRIMITIVES_NVCC_THREAD_CUH_
