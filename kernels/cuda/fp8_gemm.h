// Products of FP8 tokens with FP8 weights on the tensor cores of sm_90a, dense and
// grouped by expert (docs/design/0010-hopper-kernels.md):
//
//   out[t, o] = sum_b (sum_{i in b} x[t, i] w[o, i]) * (sx[t, b] * sw[o / 128, b])
//
// over blocks b of 128 inputs, rising, by fused multiply-adds in float32; the inner sum
// is the tensor cores'. One order for every shape and form: a token's row has the same
// bits whatever it is multiplied beside.
//
// Not the default of any backend so far: compiled, run by the simulator, compared with no
// GPU. All views name device memory.
#ifndef TESSERA_KERNELS_CUDA_FP8_GEMM_H_
#define TESSERA_KERNELS_CUDA_FP8_GEMM_H_

#include <cstdint>

#include "absl/status/status.h"

#include "kernels/cuda/fp8_gemm_config.h"
#include "kernels/cuda/primitives/device.cuh"
#include "kernels/tensor_view.h"
#include "kernels/weight_view.h"

namespace tessera::kernels::cuda {

// Tokens in e4m3. Rows of both lie at multiples of 16 bytes. What is read with a tile but
// belongs to no token must have been written once, with anything.
struct Fp8Tokens {
  TensorView codes;   // u8 [rows, inputs]
  TensorView scales;  // f32 [blocks of 128 inputs, rows]
};

// Groups of a token's inputs as FakeQuantizeE4M3 rounds them: code * scale are its
// values. x f32 [rows, inputs]. A group with a NaN or infinity has a NaN as its scale.
void QuantizeTokens(GpuStream& stream, TensorView x, const Fp8Tokens& out);

// The errors of all three: those of CheckFp8Weight, and kInvalidArgument for what a bulk
// copy cannot read. out f32 [rows, outputs].
absl::Status Fp8Linear(GpuStream& stream, const Fp8Tokens& x, const WeightView& w,
                       const Fp8GemmConfig& config, TensorView out);

// Group g multiplies rows [g * group_rows, (g + 1) * group_rows) of `w`; group_rows is a
// multiple of 128.
struct Fp8Groups {
  int64_t group_rows = 0;
  // Contiguous (prefill): i32 [rows], the group of each row, -1 for rows that are none.
  // The rows of a group begin at a multiple of 128.
  TensorView group_of_row;
  // Masked (decode): i32 [groups], how many rows each has; rows of group g begin at
  // g * max_rows, and x and out have groups * max_rows of them.
  TensorView counts;
  int64_t max_rows = 0;
};
// Rows of no group keep what they are.
absl::Status Fp8ContiguousLinear(GpuStream& stream, const Fp8Tokens& x,
                                 const WeightView& w, const Fp8Groups& groups,
                                 const Fp8GemmConfig& config, TensorView out);
absl::Status Fp8MaskedLinear(GpuStream& stream, const Fp8Tokens& x, const WeightView& w,
                             const Fp8Groups& groups, const Fp8GemmConfig& config,
                             TensorView out);

}  // namespace tessera::kernels::cuda

#endif  // TESSERA_KERNELS_CUDA_FP8_GEMM_H_
