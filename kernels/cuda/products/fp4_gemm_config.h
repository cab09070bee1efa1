// Which tile the FP4 product of fp4_gemm.h takes for a shape: a pure function. The choice
// changes no bit of a result.
#ifndef TESSERA_KERNELS_CUDA_PRODUCTS_FP4_GEMM_CONFIG_H_
#define TESSERA_KERNELS_CUDA_PRODUCTS_FP4_GEMM_CONFIG_H_

#include <cstdint>
#include <string>

#include "kernels/cuda/products/fp8_gemm_config.h"

namespace tessera::kernels::cuda {

struct Fp4GemmConfig {
  uint32_t consumers = 1;  // warpgroups of 64 outputs each
  uint32_t tile_tokens = 16;
  uint32_t stages = 2;
  uint32_t shared_bytes = 0;

  uint32_t tile_outputs() const { return 64 * consumers; }
  // The consumers and a warpgroup that expands codes.
  uint32_t threads() const { return 128 * consumers + 128; }
  std::string ToString() const;
};

// Tiles of expanded weights: one is multiplied while the next is made.
inline constexpr uint32_t kFp4Expanded = 2;

// Bytes of shared memory that the tiles of one block of inputs take.
constexpr uint32_t Fp4StageBytes(uint32_t consumers, uint32_t tile_tokens) {
  const uint32_t scales = tile_tokens * 4 < 128 ? 128 : tile_tokens * 4;
  return 64 * consumers * 64 + tile_tokens * 128 + scales;
}

// Bytes from a row of weight scales to the next: an odd number of words, so that eight
// rows lie in different banks.
constexpr uint32_t Fp4ScalePitch(uint32_t blocks) { return 4 * (blocks | 1U); }

// Bytes beside the stages: expanded weights, their scales, barriers.
constexpr uint32_t Fp4FixedBytes(uint32_t consumers, int64_t inputs, uint32_t stages) {
  const auto blocks = static_cast<uint32_t>((inputs + kFp8Block - 1) / kFp8Block);
  const uint32_t outputs = 64 * consumers;
  return kFp4Expanded * outputs * 128 + outputs * Fp4ScalePitch(blocks) +
         (stages + 2 * kFp4Expanded) * 8;
}

// At most 16 Ki inputs.
Fp4GemmConfig ChooseFp4Gemm(const Fp8GemmShape& shape);

}  // namespace tessera::kernels::cuda

#endif  // TESSERA_KERNELS_CUDA_PRODUCTS_FP4_GEMM_CONFIG_H_
