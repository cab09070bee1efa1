// Products of FP8 tokens with FP8 weights on the tensor cores of sm_90a, dense and
// grouped by expert (docs/design/0010-hopper-kernels.md):
//
//   out[t, o] = sum_b (sum_{i in b} x[t, i] w[o, i]) * (sx[t, b] * sw[o / 128, b])
//
// over blocks b of 128 inputs, rising, by fused multiply-adds in float32; the inner sum
// is the tensor cores'. One order for every shape: a token's row has the same bits
// whatever it is multiplied beside.
//
// Of numerics fp8-g128 alone (kernels/fp8_products.h), which is no default so far:
// compiled, run by the simulator, compared with no GPU. All views name device memory.
#ifndef TESSERA_KERNELS_CUDA_PRODUCTS_FP8_GEMM_H_
#define TESSERA_KERNELS_CUDA_PRODUCTS_FP8_GEMM_H_

#include <cstdint>

#include "absl/status/status.h"

#include "kernels/cuda/primitives/device.cuh"
#include "kernels/cuda/products/fp8_gemm_config.h"
#include "kernels/cuda/products/fp8_tokens.h"
#include "kernels/tensor_view.h"
#include "kernels/weight_view.h"

namespace tessera::kernels::cuda {

// The products: kInvalidArgument for what a bulk copy cannot read.
//
// The errors of CheckFp8Weight. out f32 [rows, outputs]; or [leaf, row, outputs] as a
// matrix, where the inputs are cut into leaves of whole groups, each with a sum of its
// own.
absl::Status Fp8Linear(GpuStream& stream, const Fp8Tokens& x, const WeightView& w,
                       const Fp8GemmConfig& config, TensorView out, int64_t leaves = 1);
// The binary tree over the leaves of `sums`, 1, 2, 4 or 8. out f32 [rows, outputs].
void SumLeaves(GpuStream& stream, TensorView sums, int leaves, TensorView out);

// Rows are items; each meets its expert's matrix, unless another part has that expert.
// Rows of no expert keep what they are. out f32 [rows, outputs].
absl::Status Fp8GroupedLinear(GpuStream& stream, const Fp8Tokens& x,
                              const ExpertMatrices& w, const ListedItems& items,
                              const Fp8GemmConfig& config, TensorView out);

}  // namespace tessera::kernels::cuda

#endif  // TESSERA_KERNELS_CUDA_PRODUCTS_FP8_GEMM_H_
