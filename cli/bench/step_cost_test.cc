#include "cli/bench/step_cost.h"

#include <cstdint>
#include <string>
#include <vector>

#include "gtest/gtest.h"

#include "model/config/model_config.h"
#include "model/tensors/tensor_inventory.h"
#include "tests/testing/config_documents.h"

namespace tessera::cli {
namespace {

using testing::PublishedConfig;

model::ModelConfig V3(const std::vector<std::string>& overrides) {
  return PublishedConfig("deepseek_v3", overrides);
}

// A matrix in FP8 with one F32 scale for 128 x 128.
int64_t Fp8(int64_t rows, int64_t cols) {
  return rows * cols + (rows + 127) / 128 * ((cols + 127) / 128) * 4;
}

constexpr int64_t kD = 7168;
constexpr int64_t kV = 129280;
constexpr int64_t kM = 2048;
constexpr int64_t kExperts = 256;

TEST(StepCost, BytesOfV3AreThoseOfItsPublishedShapes) {
  const model::ModelConfig config = V3({"num_hidden_layers=4"});
  const WeightCost cost = WeightCostOf(config, model::EngramRowFormat::kBf16, 100);
  const int64_t attention = Fp8(1536, kD) + Fp8(128 * 192, 1536) + Fp8(576, kD) +
                            Fp8(128 * 256, 512) + Fp8(kD, 128 * 128) + 2 * (1536 + 512);
  const int64_t norms = 2 * 2 * kD;
  const int64_t dense = 2 * Fp8(18432, kD) + Fp8(kD, 18432);
  const int64_t expert = 2 * Fp8(kM, kD) + Fp8(kD, kM);
  const int64_t router = 2 * kExperts * kD + 4 * kExperts;
  EXPECT_EQ(cost.expert_bytes, expert);
  EXPECT_EQ(cost.moe_layers, 1);
  EXPECT_EQ(cost.always_bytes, 4 * (attention + norms) + 3 * dense + router +
                                   expert /* the shared one */ + 2 * kD + 2 * kV * kD);
}

TEST(StepCost, RoundedNumericsReadTheHeadInEightBits) {
  const model::ModelConfig config = V3({"num_hidden_layers=4"});
  const WeightCost plain = WeightCostOf(config, model::EngramRowFormat::kBf16, 100);
  const WeightCost rounded =
      WeightCostOf(config, model::EngramRowFormat::kBf16, 100, true);
  // FP8 is as small already.
  EXPECT_EQ(plain.always_bytes - rounded.always_bytes, kV * kD * 31 / 32);
  EXPECT_EQ(rounded.expert_bytes, plain.expert_bytes);
}

TEST(StepCost, PrefillMultipliesEightExpertsPerTokenAndTheHeadOnce) {
  const model::ModelConfig config = V3({"num_hidden_layers=4"});
  const WeightCost cost = WeightCostOf(config, model::EngramRowFormat::kBf16, 100);
  const int64_t attention =
      1536 * kD + 128 * 192 * 1536 + 576 * kD + 128 * 256 * 512 + kD * 128 * 128;
  const int64_t token =
      4 * attention + 3 * 3 * 18432 * kD + kExperts * kD + (1 + 8) * 3 * kM * kD;
  EXPECT_EQ(PrefillMultiplyAdds(cost, config, 5), 5 * token + kV * kD);
}

TEST(StepCost, AttentionMultipliesEachPairOfTokensThatSeeEachOther) {
  const model::ModelConfig v3 = V3({"num_hidden_layers=4"});
  EXPECT_EQ(AttentionMultiplyAdds(v3, 5), 4 * 15 * 128 * (192 + 128));
  // An indexer bounds what a query sees.
  const model::ModelConfig v32 =
      PublishedConfig("deepseek_v3.2", {"num_hidden_layers=4"});
  EXPECT_EQ(AttentionMultiplyAdds(v32, 2048), AttentionMultiplyAdds(v3, 2048));
  EXPECT_EQ(AttentionMultiplyAdds(v32, 2050) - AttentionMultiplyAdds(v32, 2048),
            2 * 4 * 2048 * 128 * (192 + 128));
}

TEST(StepCost, CompressedAttentionSeesItsWindowAndEntries) {
  const model::ModelConfig config =
      PublishedConfig("deepseek_v4_flash", {"num_hidden_layers=4"});
  const model::CompressedAttentionConfig& compressed = config.compressed;
  // The last token of 8,192: 128 of the window; entries by ratio, at most 512 selected.
  int64_t rows = 0;
  for (size_t layer = 0; layer < 4; ++layer) {
    const int64_t ratio = compressed.ratios[layer];
    rows += 128 + (ratio == 0 ? 0 : ratio == 4 ? 512 : 8192 / ratio);
  }
  EXPECT_GT(rows, 4 * 128 + 512);
  EXPECT_EQ(AttentionMultiplyAdds(config, 8192) - AttentionMultiplyAdds(config, 8191),
            rows * 64 * 2 * 512);
}

TEST(StepCost, QueriesOfAnIndexerCountWhereNotAllIsSelected) {
  const model::ModelConfig config =
      PublishedConfig("deepseek_v3.2", {"num_hidden_layers=4"});
  const auto cost = [&](int64_t most_visible) {
    return WeightCostOf(config, model::EngramRowFormat::kBf16, most_visible);
  };
  EXPECT_EQ(cost(2048).always_bytes, cost(1).always_bytes);
  EXPECT_EQ(cost(2049).always_bytes - cost(2048).always_bytes,
            4 * (Fp8(64 * 128, 1536) + 2 * 64 * kD));
  EXPECT_EQ(cost(2049).token_multiply_adds - cost(2048).token_multiply_adds,
            4 * (64 * 128 * 1536 + 64 * kD));
}

TEST(StepCost, ACachedTokenOfV3IsItsLatentAndRotaryRowInEveryLayer) {
  const model::ModelConfig config = V3({"num_hidden_layers=4"});
  EXPECT_EQ(CachedBytes(config, {.block_size = 16}, 100), 100 * 4 * (512 + 64) * 4);
}

TEST(StepCost, DraftLayersAreLeftOut) {
  const WeightCost with =
      WeightCostOf(V3({"num_hidden_layers=4"}), model::EngramRowFormat::kBf16, 100);
  const WeightCost without =
      WeightCostOf(V3({"num_hidden_layers=4", "num_nextn_predict_layers=0"}),
                   model::EngramRowFormat::kBf16, 100);
  EXPECT_EQ(with.always_bytes, without.always_bytes);
  EXPECT_EQ(with.moe_layers, without.moe_layers);
}

}  // namespace
}  // namespace tessera::cli
