// NvccAsync: the instructions of Hopper that move tiles and multiply them, one a
// function: barriers in shared memory, bulk tensor copies, products of a warpgroup.
// NvccThread has them as members; their twins, which say what each does and check it, are
// SimThread's.
#ifndef TESSERA_KERNELS_CUDA_PRIMITIVES_NVCC_ASYNC_CUH_
#define TESSERA_KERNELS_CUDA_PRIMITIVES_NVCC_ASYNC_CUH_

#include <cstddef>
#include <cstdint>

#include "kernels/cuda/primitives/device_types.h"
#include "kernels/cuda/runtime/cuda_tile_map.h"

namespace tessera::kernels::cuda {

class NvccAsync {
 public:
  template <typename T>
  __device__ uint32_t SharedAddress(SharedSpan<T> x) const {
    return static_cast<uint32_t>(__cvta_generic_to_shared(x.data));
  }
  __device__ void InitBarrier(SharedSpan<uint64_t> x, int64_t i,
                              uint32_t arrivals) const {
    asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(Address(x, i)),
                 "r"(arrivals)
                 : "memory");
  }
  __device__ void FenceProxyAsync() const {
    asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
  }
  __device__ void ArriveBarrier(SharedSpan<uint64_t> x, int64_t i) const {
    asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(Address(x, i))
                 : "memory");
  }
  __device__ void ArriveExpecting(SharedSpan<uint64_t> x, int64_t i,
                                  uint32_t bytes) const {
    asm volatile(
        "mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(Address(x, i)),
        "r"(bytes)
        : "memory");
  }
  __device__ void WaitBarrier(SharedSpan<uint64_t> x, int64_t i, uint32_t parity) const {
    uint32_t ended = 0;
    while (ended == 0) {
      asm volatile(
          "{\n.reg .pred p;\n"
          "mbarrier.try_wait.parity.shared::cta.b64 p, [%1], %2;\n"
          "selp.u32 %0, 1, 0, p;\n}\n"
          : "=r"(ended)
          : "r"(Address(x, i)), "r"(parity)
          : "memory");
    }
  }
  __device__ void CopyTile(const CudaTileMap& map, int32_t col, int32_t row,
                           SharedSpan<uint8_t> to, SharedSpan<uint64_t> x,
                           int64_t i) const {
    asm volatile(
        "cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes "
        "[%0], [%1, {%2, %3}], [%4];" ::"r"(SharedAddress(to)),
        "l"(&map.native), "r"(col), "r"(row), "r"(Address(x, i))
        : "memory");
  }

  // Of the host's writes: the proxy of tensor maps is none of a kernel's own.
  __device__ const CudaTileMap& AcquireTileMap(GlobalSpan<const CudaTileMap> maps,
                                               int64_t i) const {
    const CudaTileMap& map = maps.data[i];
    asm volatile(
        "fence.proxy.tensormap::generic.acquire.sys [%0], 128;" ::"l"(&map.native)
        : "memory");
    return map;
  }

  template <size_t kCount>
  __device__ void BeginProducts(float (&d)[kCount]) const {
    KeepInRegisters(d);
    asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
  }
  __device__ void CommitProducts() const {
    asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
  }
  template <uint32_t kLeft, size_t kCount>
  __device__ void WaitProducts(float (&d)[kCount]) const {
    asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(kLeft) : "memory");
    KeepInRegisters(d);
  }
  __device__ void MultiplyE4M3(float (&d)[8], uint64_t a, uint64_t b,
                               bool accumulate) const {
    asm volatile(
        "{\n.reg .pred p;\nsetp.ne.b32 p, %10, 0;\n"
        "wgmma.mma_async.sync.aligned.m64n16k32.f32.e4m3.e4m3 {"
        "%0, %1, %2, %3, %4, %5, %6, %7"
        "}, %8, %9, p, 1, 1;\n}\n"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3]), "+f"(d[4]), "+f"(d[5]),
          "+f"(d[6]), "+f"(d[7])
        : "l"(a), "l"(b), "r"(static_cast<int>(accumulate)));
  }

  __device__ void MultiplyE4M3(float (&d)[32], uint64_t a, uint64_t b,
                               bool accumulate) const {
    asm volatile(
        "{\n.reg .pred p;\nsetp.ne.b32 p, %34, 0;\n"
        "wgmma.mma_async.sync.aligned.m64n64k32.f32.e4m3.e4m3 {"
        "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, "
        "%15, %16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, "
        "%28, %29, %30, %31"
        "}, %32, %33, p, 1, 1;\n}\n"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3]), "+f"(d[4]), "+f"(d[5]),
          "+f"(d[6]), "+f"(d[7]), "+f"(d[8]), "+f"(d[9]), "+f"(d[10]), "+f"(d[11]),
          "+f"(d[12]), "+f"(d[13]), "+f"(d[14]), "+f"(d[15]), "+f"(d[16]), "+f"(d[17]),
          "+f"(d[18]), "+f"(d[19]), "+f"(d[20]), "+f"(d[21]), "+f"(d[22]), "+f"(d[23]),
          "+f"(d[24]), "+f"(d[25]), "+f"(d[26]), "+f"(d[27]), "+f"(d[28]), "+f"(d[29]),
          "+f"(d[30]), "+f"(d[31])
        : "l"(a), "l"(b), "r"(static_cast<int>(accumulate)));
  }

  __device__ void MultiplyE4M3(float (&d)[64], uint64_t a, uint64_t b,
                               bool accumulate) const {
    asm volatile(
        "{\n.reg .pred p;\nsetp.ne.b32 p, %66, 0;\n"
        "wgmma.mma_async.sync.aligned.m64n128k32.f32.e4m3.e4m3 {"
        "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, "
        "%15, %16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, "
        "%28, %29, %30, %31, %32, %33, %34, %35, %36, %37, %38, %39, %40, "
        "%41, %42, %43, %44, %45, %46, %47, %48, %49, %50, %51, %52, %53, "
        "%54, %55, %56, %57, %58, %59, %60, %61, %62, %63"
        "}, %64, %65, p, 1, 1;\n}\n"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3]), "+f"(d[4]), "+f"(d[5]),
          "+f"(d[6]), "+f"(d[7]), "+f"(d[8]), "+f"(d[9]), "+f"(d[10]), "+f"(d[11]),
          "+f"(d[12]), "+f"(d[13]), "+f"(d[14]), "+f"(d[15]), "+f"(d[16]), "+f"(d[17]),
          "+f"(d[18]), "+f"(d[19]), "+f"(d[20]), "+f"(d[21]), "+f"(d[22]), "+f"(d[23]),
          "+f"(d[24]), "+f"(d[25]), "+f"(d[26]), "+f"(d[27]), "+f"(d[28]), "+f"(d[29]),
          "+f"(d[30]), "+f"(d[31]), "+f"(d[32]), "+f"(d[33]), "+f"(d[34]), "+f"(d[35]),
          "+f"(d[36]), "+f"(d[37]), "+f"(d[38]), "+f"(d[39]), "+f"(d[40]), "+f"(d[41]),
          "+f"(d[42]), "+f"(d[43]), "+f"(d[44]), "+f"(d[45]), "+f"(d[46]), "+f"(d[47]),
          "+f"(d[48]), "+f"(d[49]), "+f"(d[50]), "+f"(d[51]), "+f"(d[52]), "+f"(d[53]),
          "+f"(d[54]), "+f"(d[55]), "+f"(d[56]), "+f"(d[57]), "+f"(d[58]), "+f"(d[59]),
          "+f"(d[60]), "+f"(d[61]), "+f"(d[62]), "+f"(d[63])
        : "l"(a), "l"(b), "r"(static_cast<int>(accumulate)));
  }

 private:
  __device__ uint32_t Address(SharedSpan<uint64_t> x, int64_t i) const {
    return static_cast<uint32_t>(__cvta_generic_to_shared(x.data + i));
  }
  // The compiler may not move reads or writes of the registers past this.
  template <size_t kCount>
  __device__ static void KeepInRegisters(float (&d)[kCount]) {
#pragma unroll
    for (size_t i = 0; i < kCount; ++i) {
      asm volatile("" : "+f"(d[i])::"memory");
    }
  }
};

}  // namespace tessera::kernels::cuda

#endif  // TESSERA_KERNELS_CUDA_PRIMITIVES_NVCC_ASYNC_CUH_
