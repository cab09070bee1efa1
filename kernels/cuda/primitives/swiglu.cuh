// The activation of experts on the device.
#ifndef TESSERA_KERNELS_CUDA_PRIMITIVES_SWIGLU_CUH_
#define TESSERA_KERNELS_CUDA_PRIMITIVES_SWIGLU_CUH_

#include <cmath>

#include "kernels/cuda/primitives/device.cuh"

namespace tessera::kernels::cuda {

// silu(min(g, limit)) * clamp(u, -limit, limit) by comparisons that leave a NaN as it is.
// Without a limit it is infinity.
TESSERA_DEVICE inline float SwiGlu(float g, float u, float limit) {
  const float limited = u > limit ? limit : (u < -limit ? -limit : u);
  const float bounded = g > limit ? limit : g;
  return bounded / (1.0F + expf(-bounded)) * limited;
}

}  // namespace tessera::kernels::cuda

#endif  // TESSERA_KERNELS_CUDA_PRIMITIVES_SWIGLU_CUH_
