// The choice of a tile of FP4 products: it fits the device, and fills it where it can.
#include "kernels/cuda/products/fp4_gemm_config.h"

#include <cstdint>

#include "gtest/gtest.h"

#include "kernels/cuda/primitives/device_types.h"

namespace tessera::kernels::cuda {
namespace {

TEST(Fp4GemmConfig, EveryShapeGetsATileThatFitsABlock) {
  for (const int64_t tokens : {1, 16, 17, 64, 2048}) {
    for (const int64_t outputs : {1, 64, 200, 7168}) {
      for (const int64_t inputs : {32, 128, 2048, 7168, 16 * 1024}) {
        const Fp4GemmConfig config =
            ChooseFp4Gemm({.tokens = tokens, .outputs = outputs, .inputs = inputs});
        EXPECT_LE(config.shared_bytes, kMaxSharedBytes) << config.ToString();
        EXPECT_GE(config.stages, 2 * kFp4Expanded) << config.ToString();
        EXPECT_EQ(config.shared_bytes,
                  config.stages * Fp4StageBytes(config.consumers, config.tile_tokens) +
                      Fp4FixedBytes(config.consumers, inputs, config.stages));
      }
    }
  }
}

TEST(Fp4GemmConfig, FewOutputsAreCutFinerInDecodeAlone) {
  const Fp8GemmShape few = {.tokens = 8, .outputs = 7168, .inputs = 2048};
  EXPECT_EQ(ChooseFp4Gemm(few).consumers, 1U);
  Fp8GemmShape shape = few;
  shape.groups = 32;
  EXPECT_EQ(ChooseFp4Gemm(shape).consumers, 2U);
  shape = few;
  shape.tokens = 17;
  EXPECT_EQ(ChooseFp4Gemm(shape).consumers, 2U);
  EXPECT_EQ(ChooseFp4Gemm(shape).tile_tokens, 64U);
}

TEST(Fp4GemmConfig, TheDesignNotesShapesAreThese) {
  EXPECT_EQ(ChooseFp4Gemm({.tokens = 16, .outputs = 2048, .inputs = 7168, .groups = 32})
                .ToString(),
            "128 x 16 outputs x tokens, 8 stages, 384 threads, 144992 bytes");
  EXPECT_EQ(ChooseFp4Gemm({.tokens = 512, .outputs = 2048, .inputs = 7168, .groups = 32})
                .ToString(),
            "128 x 64 outputs x tokens, 8 stages, 384 threads, 195168 bytes");
}

}  // namespace
}  // namespace tessera::kernels::cuda
