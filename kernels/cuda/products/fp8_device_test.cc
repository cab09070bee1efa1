// The FP8 products on a device: over the simulator (sim_fp8_test) and, where there is
// one, on a GPU (gpu_fp8_test), which is the comparison that a backend waits for. Against
// sums in float64, within what the tensor cores' accumulators may lose; and the same bits
// in every tile and of items, which no rounding excuses.
#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <random>
#include <vector>

#include "absl/status/status.h"
#include "gtest/gtest.h"

#include "kernels/cuda/expert_table.h"
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
  Fp8Tokens Tokens() {
    Fp8Tokens x;
    x.codes = TensorView(OnDevice(codes_), DType::kU8, {kTokens, kInputs});
    x.scales = TensorView(OnDevice(scales_), DType::kF32, {kBlocks, kScalePitch});
    x.scales.shape[1] = kTokens;
    return x;
  }
  WeightView Weight(const std::vector<uint8_t>& codes) {
    WeightView w;
    w.data = reinterpret_cast<const std::byte*>(OnDevice(codes));
    w.dtype = DType::kF8E4M3;
    w.rows = kOutputs;
    w.cols = kInputs;
    w.row_bytes = kInputs;
    w.scales = reinterpret_cast<const std::byte*>(OnDevice(weight_scales_));
    w.scale_stride = kBlocks;
    w.block_rows = kFp8Block;
    w.block_cols = kFp8Block;
    return w;
  }
  static Fp8GemmConfig Config(uint32_t consumers, uint32_t tile_tokens, uint32_t stages) {
    Fp8GemmConfig config;
    config.consumers = consumers;
    config.tile_tokens = tile_tokens;
    config.stages = stages;
    config.shared_bytes =
        stages * Fp8StageBytes(consumers, tile_tokens) + Fp8FixedBytes(kInputs, stages);
    return config;
  }
  // What `multiply(out)` makes; out f32 [tokens, outputs].
  template <typename Product>
  std::vector<float> ResultOf(Product multiply) {
    float* const out = OnDevice(std::vector<float>(kTokens * kOutputs));
    const absl::Status status =
        multiply(TensorView(out, DType::kF32, {kTokens, kOutputs}));
    EXPECT_TRUE(status.ok()) << status;
    std::vector<float> result = Fetch(out, kTokens * kOutputs);
    FreeArrays();
    return result;
  }
  std::vector<float> Multiply(const std::vector<uint8_t>& weights,
                              const Fp8GemmConfig& config) {
    return ResultOf([&](TensorView out) {
      return Fp8Linear(*stream_, Tokens(), Weight(weights), config, out);
    });
  }
  // The tokens are items of two experts, the first `of_first` of them the first's.
  std::vector<float> MultiplyItems(int32_t of_first, const std::vector<uint8_t>& second,
                                   const Fp8GemmConfig& config) {
    const std::vector<int32_t> offsets = {0, of_first, kTokens};
    const WeightView w[] = {Weight(weights_), Weight(second)};
    const ExpertWeights experts[] = {{w[0], w[0], w[0]}, {w[1], w[1], w[1]}};
    const auto table = ExpertTable::Create(machine_, 0, *stream_, experts, true);
    EXPECT_TRUE(table.ok()) << table.status();
    return ResultOf([&](TensorView out) {
      return Fp8GroupedLinear(*stream_, Tokens(), {&(*table)->parts().front(), 0},
                              {TensorView(OnDevice(offsets), DType::kI32, {3})}, config,
                              out);
    });
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
  const std::vector<float> seen = Multiply(weights_, Config(2, 64, 3));
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
  const std::vector<float> first = Multiply(weights_, Config(2, 64, 3));
  constexpr std::array<std::array<uint32_t, 3>, 4> kTiles = {
      {{1, 16, 8}, {2, 16, 2}, {2, 128, 6}, {2, 64, 2}}};
  for (const auto& [consumers, tile_tokens, stages] : kTiles) {
    const std::vector<float> seen =
        Multiply(weights_, Config(consumers, tile_tokens, stages));
    EXPECT_EQ(std::memcmp(seen.data(), first.data(), first.size() * sizeof(float)), 0)
        << consumers << " x " << tile_tokens << ", " << stages << " stages";
  }
}

TEST_F(Fp8Device, ItemsHaveTheBitsOfTheDenseProduct) {
  constexpr int32_t kOfFirst = 19;
  const std::vector<uint8_t> second(weights_.rbegin(), weights_.rend());
  std::vector<float> expected = Multiply(second, Config(2, 64, 3));
  const std::vector<float> first = Multiply(weights_, Config(2, 64, 3));
  std::copy_n(first.begin(), kOfFirst * kOutputs, expected.begin());
  for (const uint32_t tile_tokens : {16U, 64U, 128U}) {
    const std::vector<float> seen =
        MultiplyItems(kOfFirst, second, Config(2, tile_tokens, 2));
    EXPECT_EQ(std::memcmp(seen.data(), expected.data(), expected.size() * sizeof(float)),
              0)
        << tile_tokens;
  }
}

}  // namespace
}  // namespace tessera::kernels::cuda
