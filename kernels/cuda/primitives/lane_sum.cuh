// The one order of summation of kernel_backend.h on a half warp: its 16 threads are the
// 16 lanes, lane l holds the elements l, l + 16, …
#ifndef TESSERA_KERNELS_CUDA_PRIMITIVES_LANE_SUM_CUH_
#define TESSERA_KERNELS_CUDA_PRIMITIVES_LANE_SUM_CUH_

#include <cstdint>

#include "kernels/cuda/primitives/device.cuh"

namespace tessera::kernels::cuda {

inline constexpr uint32_t kLanes = 16;

// Adds the lanes as ((l, l+8), (l, l+4), (l, l+2), (l, l+1)). The sum is in lane 0 of
// either half warp; what other lanes get has no meaning. All 32 threads take part.
TESSERA_DEVICE inline float ReduceLanes(Thread& thread, float lane_sum) {
  for (uint32_t distance = kLanes / 2; distance > 0; distance /= 2) {
    lane_sum += thread.ShuffleDown(lane_sum, distance);
  }
  return lane_sum;
}

}  // namespace tessera::kernels::cuda

#endif  // TESSERA_KERNELS_CUDA_PRIMITIVES_LANE_SUM_CUH_
