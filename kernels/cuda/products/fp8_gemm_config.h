// Which tile the FP8 product of fp8_gemm.h takes for a shape: a pure function, so that it
// can be read and tested without a device. The choice changes no bit of a result.
#ifndef TESSERA_KERNELS_CUDA_PRODUCTS_FP8_GEMM_CONFIG_H_
#define TESSERA_KERNELS_CUDA_PRODUCTS_FP8_GEMM_CONFIG_H_

#include <cstdint>
#include <string>

#include "absl/status/status.h"

#include "kernels/weight_view.h"

namespace tessera::kernels::cuda {

// Inputs that share a scale, outputs that share one of the weights.
inline constexpr int64_t kFp8Block = 128;

struct Fp8GemmShape {
  int64_t tokens = 0;  // rows that a group is expected to have
  int64_t outputs = 0;
  int64_t inputs = 0;
  int64_t groups = 1;  // experts of a grouped product
  int multiprocessors = 132;
};

struct Fp8GemmConfig {
  uint32_t consumers = 1;  // warpgroups of 64 outputs each
  uint32_t tile_tokens = 16;
  uint32_t stages = 1;
  uint32_t shared_bytes = 0;

  uint32_t tile_outputs() const { return 64 * consumers; }
  // The consumers and one warp that copies.
  uint32_t threads() const { return 128 * consumers + 32; }
  std::string ToString() const;
};

// Bytes of shared memory that the tiles of one block of inputs take.
constexpr uint32_t Fp8StageBytes(uint32_t consumers, uint32_t tile_tokens) {
  const uint32_t scales = tile_tokens * 4 < 128 ? 128 : tile_tokens * 4;
  return (64 * consumers + tile_tokens) * 128 + scales;
}

// Bytes beside the stages: two rows of weight scales and two barriers a stage.
constexpr uint32_t Fp8FixedBytes(int64_t inputs, uint32_t stages) {
  const auto blocks = static_cast<uint32_t>((inputs + kFp8Block - 1) / kFp8Block);
  return blocks * 8 + stages * 16;
}

Fp8GemmConfig ChooseFp8Gemm(const Fp8GemmShape& shape);

// Whether the product takes this weight: e4m3, blocks of 128 x 128, its columns not cut
// inside of one, rows that a bulk copy can read. kFailedPrecondition with the reason.
absl::Status CheckFp8Weight(const WeightView& w);

}  // namespace tessera::kernels::cuda

#endif  // TESSERA_KERNELS_CUDA_PRODUCTS_FP8_GEMM_CONFIG_H_
