// The choice of a tile is a function of the shape: it fits the device, fills it where it
// can, and refuses weights that the copies cannot read.
#include "kernels/cuda/products/fp8_gemm_config.h"

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

#include "kernels/cuda/primitives/device_types.h"

namespace tessera::kernels::cuda {
namespace {

using testing::HasSubstr;

TEST(Fp8GemmConfig, EveryShapeGetsATileThatFitsABlock) {
  for (const int64_t tokens : {1, 16, 17, 64, 65, 128, 2048, 100'000}) {
    for (const int64_t outputs : {1, 64, 200, 7168, 24'576}) {
      for (const int64_t inputs : {1, 128, 1536, 7168, 128 * 1024}) {
        const Fp8GemmConfig config =
            ChooseFp8Gemm({.tokens = tokens, .outputs = outputs, .inputs = inputs});
        EXPECT_LE(config.shared_bytes, kMaxSharedBytes) << config.ToString();
        EXPECT_GE(config.stages, 4U) << config.ToString();
        EXPECT_EQ(config.shared_bytes,
                  config.stages * Fp8StageBytes(config.consumers, config.tile_tokens) +
                      Fp8FixedBytes(inputs, config.stages));
      }
    }
  }
}

TEST(Fp8GemmConfig, TilesAreAsWideAsTheTokens) {
  const auto tile = [](int64_t tokens) {
    return ChooseFp8Gemm({.tokens = tokens, .outputs = 24'576, .inputs = 1536})
        .tile_tokens;
  };
  EXPECT_EQ(tile(1), 16U);
  EXPECT_EQ(tile(16), 16U);
  EXPECT_EQ(tile(17), 64U);
  EXPECT_EQ(tile(64), 64U);
  EXPECT_EQ(tile(65), 128U);
  EXPECT_EQ(tile(4096), 128U);
}

TEST(Fp8GemmConfig, FewOutputsAreCutFinerInDecodeAlone) {
  // 7168 outputs are 56 tiles of 128, fewer than processors.
  EXPECT_EQ(ChooseFp8Gemm({.tokens = 8, .outputs = 7168, .inputs = 2048}).consumers, 1U);
  EXPECT_EQ(ChooseFp8Gemm({.tokens = 8, .outputs = 24'576, .inputs = 1536}).consumers,
            2U);
  EXPECT_EQ(ChooseFp8Gemm({.tokens = 64, .outputs = 7168, .inputs = 2048}).consumers, 2U);
  // With 32 experts there is work enough.
  EXPECT_EQ(ChooseFp8Gemm({.tokens = 8, .outputs = 7168, .inputs = 2048, .groups = 32})
                .consumers,
            2U);
}

TEST(Fp8GemmConfig, TheDesignNotesShapesAreThese) {
  const Fp8GemmConfig decode =
      ChooseFp8Gemm({.tokens = 16, .outputs = 7168, .inputs = 2048});
  EXPECT_EQ(decode.ToString(),
            "64 x 16 outputs x tokens, 8 stages, 160 threads, 83200 bytes");
  const Fp8GemmConfig prefill =
      ChooseFp8Gemm({.tokens = 2048, .outputs = 7168, .inputs = 16'384});
  EXPECT_EQ(prefill.ToString(),
            "128 x 128 outputs x tokens, 6 stages, 288 threads, 200800 bytes");
}

TEST(Fp8GemmConfig, WeightsThatCopiesOrScalesDoNotFitAreRefusedWithTheReason) {
  alignas(16) static std::array<std::byte, 64> memory;
  WeightView w;
  w.data = memory.data();
  w.dtype = model::DType::kF8E4M3;
  w.rows = 512;
  w.cols = 512;
  w.row_bytes = 512;
  w.scales = memory.data();
  w.scale_stride = 4;
  w.block_rows = kFp8Block;
  w.block_cols = kFp8Block;
  EXPECT_TRUE(CheckFp8Weight(w).ok());
  EXPECT_TRUE(CheckFp8Weight(w.RowSlice(128, 100)).ok());
  const auto reason = [](const WeightView& view) {
    const absl::Status status = CheckFp8Weight(view);
    EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
    return std::string(status.message());
  };
  EXPECT_TRUE(CheckFp8Weight(w.RowSlice(64, 128)).ok());
  EXPECT_THAT(reason(w.ColSlice(32, 128)), HasSubstr("cut at column 32"));
  WeightView other = w;
  other.dtype = model::DType::kBF16;
  EXPECT_THAT(reason(other), HasSubstr("not e4m3"));
  other = w;
  other.block_cols = 64;
  EXPECT_THAT(reason(other), HasSubstr("scales of 128 x 128"));
  other = w;
  other.row_bytes = 520;
  EXPECT_THAT(reason(other), HasSubstr("520 bytes apart"));
  other = w;
  other.data += 8;
  EXPECT_THAT(reason(other), HasSubstr("weights 8 mod 16"));
}

}  // namespace
}  // namespace tessera::kernels::cuda
