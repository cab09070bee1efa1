// The FP8 products on a device: over the simulator (sim_fp8_test) and, where there is
// one, on a GPU (gpu_fp8_test), which is the comparison that a backend waits for. Against
// sums in float64, within what the tensor cores' accumulators may lose; and the same bits
// in every tile, which no rounding excuses.
#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <random>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "gtest/gtest.h"

#include "kernels/cuda/products/fp8_gemm.h"
#include "model/formats/number_formats.h"
#include "tests/testing/gpu_device_test.h"

namespace tessera::kernels::cuda {
namespace {

constexpr int64_t kTokens = 37;
constexpr int64_t kOutputs = 200;
constexpr int64_t kInputs = 400;
constexpr int64_t kBlocks = 4;
constexpr int64_t kScalePitch = 40;

class Fp8Device : public DeviceTest {
 protected:
  Fp8Device() {
    std::mt19937_64 random(1);
    Fill(random, codes_);
    Fill(random, weights_);
    for (float& scale : scales_) {
      scale = std::ldexp(1.0F, static_cast<int>(random() % 8) - 6);
    }
    for (float& scale : weight_scales_) {
      scale = 0.01F * static_cast<float>(1 + random() % 99);
    }
  }
  static void Fill(std::mt19937_64& random, std::vector<uint8_t>& codes) {
    for (uint8_t& code : codes) {
      code = static_cast<uint8_t>(random() & 0xbfU);  // no NaN
    }
  }
  template <typename T>
  T* OnDevice(const std::vector<T>& values) {
    auto memory = machine_->Malloc(0, values.size() * sizeof(T));
    EXPECT_TRUE(memory.ok()) << memory.status();
    EXPECT_TRUE(
        stream_->MemcpyAsync(*memory, values.data(), values.size() * sizeof(T)).ok());
    return static_cast<T*>(*memory);
  }

  // The product by one tile.
  std::vector<float> Multiply(uint32_t consumers, uint32_t tile_tokens, uint32_t stages) {
    Fp8Tokens x;
    x.codes = TensorView(OnDevice(codes_), DType::kU8, {kTokens, kInputs});
    x.scales = TensorView(OnDevice(scales_), DType::kF32, {kBlocks, kScalePitch});
    x.scales.shape[1] = kTokens;
    WeightView w;
    w.data = reinterpret_cast<const std::byte*>(OnDevice(weights_));
    w.dtype = DType::kF8E4M3;
    w.rows = kOutputs;
    w.cols = kInputs;
    w.row_bytes = kInputs;
    w.scales = reinterpret_cast<const std::byte*>(OnDevice(weight_scales_));
    w.scale_stride = kBlocks;
    w.block_rows = kFp8Block;
    w.block_cols = kFp8Block;
    std::vector<float> result(kTokens * kOutputs);
    float* const out = OnDevice(result);
    Fp8GemmConfig config;
    config.consumers = consumers;
    config.tile_tokens = tile_tokens;
    config.stages = stages;
    config.shared_bytes =
        stages * Fp8StageBytes(consumers, tile_tokens) + Fp8FixedBytes(kInputs, stages);
    const absl::Status status = Fp8Linear(
        *stream_, x, w, config, TensorView(out, DType::kF32, {kTokens, kOutputs}));
    EXPECT_TRUE(status.ok()) << status;
    EXPECT_TRUE(
        stream_->MemcpyAsync(result.data(), out, result.size() * sizeof(float)).ok());
    const absl::Status ended = stream_->Synchronize();
    EXPECT_TRUE(ended.ok()) << ended;
    for (const void* memory :
         {static_cast<const void*>(x.codes.data), static_cast<const void*>(x.scales.data),
          static_cast<const void*>(w.data), static_cast<const void*>(w.scales),
          static_cast<const void*>(out)}) {
      EXPECT_TRUE(machine_->Free(const_cast<void*>(memory)).ok());
    }
    return result;
  }
  double Term(int64_t token, int64_t output, int64_t input) const {
    const int64_t block = input / kFp8Block;
    return double{model::kE4M3Values[codes_[At(token * kInputs + input)]]} *
           double{scales_[At(block * kScalePitch + token)]} *
           double{model::kE4M3Values[weights_[At(output * kInputs + input)]]} *
           double{weight_scales_[At(output / kFp8Block * kBlocks + block)]};
  }
  static size_t At(int64_t i) { return static_cast<size_t>(i); }

  std::vector<uint8_t> codes_ = std::vector<uint8_t>(kTokens * kInputs);
  std::vector<uint8_t> weights_ = std::vector<uint8_t>(kOutputs * kInputs);
  std::vector<float> scales_ = std::vector<float>(kBlocks * kScalePitch);
  std::vector<float> weight_scales_ = std::vector<float>(2 * kBlocks);
};

// An FP8 accumulator keeps some 14 bits (DeepSeek-V3's report): of the 33 values that one
// instruction adds, four of them a block, each may lose 2^-13 of the largest one.
TEST_F(Fp8Device, IsWithinItsAccumulatorsOfTheExactSum) {
  const std::vector<float> seen = Multiply(2, 64, 3);
  for (int64_t token = 0; token < kTokens; ++token) {
    for (int64_t output = 0; output < kOutputs; ++output) {
      double sum = 0;
      double magnitude = 0;
      std::array<double, kBlocks> largest = {};
      for (int64_t input = 0; input < kInputs; ++input) {
        const double term = Term(token, output, input);
        double& of_block = largest[At(input / kFp8Block)];
        sum += term;
        magnitude += std::abs(term);
        of_block = std::max(of_block, std::abs(term));
      }
      double bound = magnitude * 10 * 0x1p-24;
      for (const double of_block : largest) {
        bound += 4 * 33 * 0x1p-13 * of_block;
      }
      ASSERT_NEAR(seen[At(token * kOutputs + output)], sum, bound)
          << token << ", " << output;
    }
  }
}

TEST_F(Fp8Device, EveryTileHasTheSameBits) {
  const std::vector<float> first = Multiply(2, 64, 3);
  constexpr std::array<std::array<uint32_t, 3>, 4> kTiles = {
      {{1, 16, 8}, {2, 16, 2}, {2, 128, 6}, {2, 64, 2}}};
  for (const auto& [consumers, tile_tokens, stages] : kTiles) {
    const std::vector<float> seen = Multiply(consumers, tile_tokens, stages);
    EXPECT_EQ(std::memcmp(seen.data(), first.data(), first.size() * sizeof(float)), 0)
        << consumers << " x " << tile_tokens << ", " << stages << " stages";
  }
}

}  // namespace
}  // namespace tessera::kernels::cuda
