// The FP4 products on a device: over the simulator (sim_fp4_test) and, where there is
// one, on a GPU (gpu_fp4_test). Against sums in float64, within what the tensor cores'
// accumulators may lose; and the same bits in every tile.
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
#include "kernels/cuda/products/fp4_gemm.h"
#include "model/formats/number_formats.h"
#include "tests/testing/gpu_device_test.h"

namespace tessera::kernels::cuda {
namespace {

constexpr int64_t kExperts = 3;
constexpr int64_t kItems = 60;
constexpr int64_t kOutputs = 128;
constexpr int64_t kInputs = 416;
constexpr int64_t kBlocks = 4;

const std::vector<int32_t> kOffsets = {0, 7, 40, 60};

class Fp4Device : public DeviceTest {
 protected:
  Fp4Device() {
    std::mt19937_64 random(1);
    for (uint8_t& code : codes_) {
      code = static_cast<uint8_t>(random() & 0xbfU);  // no NaN
    }
    for (uint8_t& pair : weights_) {
      pair = static_cast<uint8_t>(random());
    }
    for (float& scale : scales_) {
      scale = std::ldexp(1.0F, static_cast<int>(random() % 8) - 6);
    }
    for (uint8_t& scale : weight_scales_) {
      scale = static_cast<uint8_t>(115 + random() % 25);
    }
  }
  static size_t At(int64_t i) { return static_cast<size_t>(i); }

  std::vector<float> Multiply(uint32_t consumers, uint32_t tile_tokens, uint32_t stages) {
    Fp8Tokens x;
    x.codes = TensorView(OnDevice(codes_), DType::kU8, {kItems, kInputs});
    x.scales = TensorView(OnDevice(scales_), DType::kF32, {kBlocks, kItems});
    const ListedItems items = {
        TensorView(OnDevice(kOffsets), DType::kI32, {kExperts + 1})};
    float* const out = OnDevice(std::vector<float>(kItems * kOutputs));
    const Fp4GemmConfig config = {
        .consumers = consumers,
        .tile_tokens = tile_tokens,
        .stages = stages,
        .shared_bytes = stages * Fp4StageBytes(consumers, tile_tokens) +
                        Fp4FixedBytes(consumers, kInputs, stages)};
    const std::vector<ExpertWeights> experts = Experts();
    auto table = ExpertTable::Create(machine_, 0, *stream_, experts, true);
    EXPECT_TRUE(table.ok()) << table.status();
    const absl::Status status =
        Fp4GroupedLinear(*stream_, x, {&(*table)->parts().front(), 0}, items, config,
                         TensorView(out, DType::kF32, {kItems, kOutputs}));
    EXPECT_TRUE(status.ok()) << status;
    std::vector<float> result = Fetch(out, kItems * kOutputs);
    FreeArrays();
    return result;
  }
  // On the device; the three matrices of one are the same.
  std::vector<ExpertWeights> Experts() {
    WeightView w;
    w.dtype = DType::kFp4;
    w.rows = kOutputs;
    w.cols = kInputs;
    w.row_bytes = kInputs / 2;
    w.scale_dtype = DType::kF8E8M0;
    w.scale_stride = kInputs / 32;
    w.block_rows = 1;
    w.block_cols = 32;
    w.data = reinterpret_cast<const std::byte*>(OnDevice(weights_));
    w.scales = reinterpret_cast<const std::byte*>(OnDevice(weight_scales_));
    std::vector<ExpertWeights> experts;
    for (int64_t e = 0; e < kExperts; ++e) {
      experts.push_back({w, w, w});
      w.data += kOutputs * w.row_bytes;
      w.scales += kOutputs * w.scale_stride;
    }
    return experts;
  }

  double Term(int64_t item, int64_t output, int64_t input) const {
    const auto expert =
        std::upper_bound(kOffsets.begin(), kOffsets.end(), item) - kOffsets.begin() - 1;
    const int64_t row = expert * kOutputs + output;
    const uint8_t pair = weights_[At((row * kInputs + input) / 2)];
    const auto code = static_cast<uint8_t>(input % 2 == 0 ? pair & 15U : pair >> 4);
    return double{model::kE4M3Values[codes_[At(item * kInputs + input)]]} *
           double{scales_[At(input / 128 * kItems + item)]} *
           std::ldexp(double{model::Fp4ToFloat(code)},
                      weight_scales_[At((row * kInputs + input) / 32)] - 127);
  }

  std::vector<uint8_t> codes_ = std::vector<uint8_t>(kItems * kInputs);
  std::vector<float> scales_ = std::vector<float>(kBlocks * kItems);
  std::vector<uint8_t> weights_ = std::vector<uint8_t>(kExperts * kOutputs * kInputs / 2);
  std::vector<uint8_t> weight_scales_ =
      std::vector<uint8_t>(kExperts * kOutputs * kInputs / 32);
};

// An FP8 accumulator keeps some 14 bits (DeepSeek-V3's report): of the 33 values that one
// instruction adds, each may lose 2^-13 of the largest one. An instruction is a group.
TEST_F(Fp4Device, IsWithinItsAccumulatorsOfTheExactSum) {
  const std::vector<float> seen = Multiply(2, 64, 4);
  for (int64_t item = 0; item < kItems; ++item) {
    for (int64_t output = 0; output < kOutputs; ++output) {
      double sum = 0;
      double magnitude = 0;
      double bound = 0;
      for (int64_t begin = 0; begin < kInputs; begin += 32) {
        double largest = 0;
        for (int64_t input = begin; input < begin + 32; ++input) {
          const double term = Term(item, output, input);
          sum += term;
          magnitude += std::abs(term);
          largest = std::max(largest, std::abs(term));
        }
        bound += 33 * 0x1p-13 * largest;
      }
      bound += magnitude * 20 * 0x1p-24;
      ASSERT_NEAR(seen[At(item * kOutputs + output)], sum, bound)
          << item << ", " << output;
    }
  }
}

TEST_F(Fp4Device, EveryTileHasTheSameBits) {
  const std::vector<float> first = Multiply(2, 64, 4);
  constexpr std::array<std::array<uint32_t, 3>, 3> kTiles = {
      {{1, 16, 8}, {2, 16, 2}, {2, 64, 3}}};
  for (const auto& [consumers, tile_tokens, stages] : kTiles) {
    const std::vector<float> seen = Multiply(consumers, tile_tokens, stages);
    EXPECT_EQ(std::memcmp(seen.data(), first.data(), first.size() * sizeof(float)), 0)
        << consumers << " x " << tile_tokens << ", " << stages << " stages";
  }
}

}  // namespace
}  // namespace tessera::kernels::cuda
