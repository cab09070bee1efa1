// Products of FP8 tokens with FP4 (MXFP4) weights on the tensor cores of sm_90a, grouped
// by expert: numerics fp8-g128, whose definition is in kernels/fp8_products.h. Hopper
// multiplies no FP4: the codes become e4m3 in shared memory (fp4_gemm.cu). One order of
// sums for every shape: a token's row has the same bits whatever it is multiplied beside.
//
// Compiled, run by the simulator, compared with no GPU. All views name device memory.
#ifndef TESSERA_KERNELS_CUDA_PRODUCTS_FP4_GEMM_H_
#define TESSERA_KERNELS_CUDA_PRODUCTS_FP4_GEMM_H_

#include "absl/status/status.h"

#include "kernels/cuda/primitives/device.cuh"
#include "kernels/cuda/products/fp4_gemm_config.h"
#include "kernels/cuda/products/fp8_tokens.h"
#include "kernels/tensor_view.h"

namespace tessera::kernels::cuda {

// Weights e2m1 with an E8M0 scale for each 32 inputs of a row, a multiple of 32 inputs
// and at most 16 Ki; otherwise as Fp8GroupedLinear.
absl::Status Fp4GroupedLinear(GpuStream& stream, const Fp8Tokens& x,
                              const ExpertMatrices& w, const ListedItems& items,
                              const Fp4GemmConfig& config, TensorView out);

}  // namespace tessera::kernels::cuda

#endif  // TESSERA_KERNELS_CUDA_PRODUCTS_FP4_GEMM_H_
