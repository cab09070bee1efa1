// What the config says of the experts' format is what IsFp8Expert says of those that are
// loaded: of checkpoints of every family, of tiny models and of ones whose sizes or
// blocks the products of FP8 do not take.
#include "worker/runner/weights/expert_format.h"

#include <filesystem>
#include <memory>
#include <numeric>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "gtest/gtest.h"

#include "kernels/fp8_products.h"
#include "model/config/model_config.h"
#include "model/tensors/checkpoint.h"
#include "tests/testing/tiny_checkpoint.h"
#include "worker/runner/weights/weight_loader.h"

namespace tessera::worker {
namespace {

using ::tessera::testing::TinyModel;

// Compares every MoE layer; `seen` (out): which answers there were.
void ExpectThatOfTheLoaded(const std::string& folder, std::set<bool>& seen) {
  SCOPED_TRACE(folder);
  const model::ModelConfig config = model::LoadModelConfig(folder).value();
  const auto checkpoint = model::Checkpoint::Open(folder).value();
  std::vector<int> experts(static_cast<size_t>(config.moe.num_experts));
  std::iota(experts.begin(), experts.end(), 0);
  std::vector<int> drafts(static_cast<size_t>(config.draft_moe.num_experts));
  std::iota(drafts.begin(), drafts.end(), 0);
  const auto loaded = LoadWeights(*checkpoint, config,
                                  {.local_experts = experts, .draft_experts = drafts});
  ASSERT_TRUE(loaded.ok()) << loaded.status();
  const auto compare = [&](const LayerWeights& layer, const model::MoeConfig& moe) {
    if (!layer.moe.has_value()) {
      return;
    }
    ASSERT_FALSE(layer.moe->experts.empty());
    const bool expected = AreFp8Experts(config, moe);
    seen.insert(expected);
    for (const kernels::ExpertWeights& expert : layer.moe->experts) {
      EXPECT_EQ(kernels::IsFp8Expert(expert), expected);
    }
  };
  for (const LayerWeights& layer : loaded->weights.layers) {
    compare(layer, config.moe);
  }
  for (const DraftWeights& draft : loaded->weights.drafts) {
    compare(draft.layer, config.draft_moe);
  }
  if (loaded->weights.dspark.has_value()) {
    for (const LayerWeights& stage : loaded->weights.dspark->stages) {
      compare(stage, config.draft_moe);
    }
  }
}

TEST(ExpertFormat, OfTheConfigIsThatOfTheLoadedExperts) {
  std::set<bool> seen;
  for (const char* folder :
       {"models/demo", "tests/data/v3", "tests/data/v3_bf16", "tests/data/v32",
        "tests/data/v4", "tests/data/v41", "tests/data/v4_0731"}) {
    ExpectThatOfTheLoaded(folder, seen);
  }
  EXPECT_EQ(seen.size(), 2U);
}

TEST(ExpertFormat, OfTinyModelsIsThatOfTheLoadedExperts) {
  std::vector<TinyModel> models = testing::TinyModels();
  models.push_back(testing::TinyFp8Experts());
  std::set<bool> seen;
  for (const TinyModel& tiny : models) {
    const std::string folder = ::testing::TempDir() + "/expert_format_" + tiny.name;
    std::filesystem::create_directories(folder);
    ASSERT_TRUE(testing::WriteTinyCheckpoint(tiny, 1, folder).ok());
    ExpectThatOfTheLoaded(folder, seen);
  }
  EXPECT_EQ(seen.size(), 2U);
}

TEST(ExpertFormat, IsOneOfThoseThatAreRounded) {
  model::ModelConfig config;
  config.hidden_size = 256;
  config.fp8_linears = true;
  model::MoeConfig moe = {.expert_width = 64, .expert_dtype = model::DType::kF8E4M3};
  EXPECT_TRUE(AreFp8Experts(config, moe));
  moe.expert_width = 60;  // rows that copies do not read
  EXPECT_FALSE(AreFp8Experts(config, moe));
  moe.expert_dtype = model::DType::kFp4;
  moe.expert_width = 96;
  EXPECT_TRUE(AreFp8Experts(config, moe));
  moe.expert_width = 48;
  EXPECT_FALSE(AreFp8Experts(config, moe));
  moe.expert_dtype = model::DType::kF8E4M3;
  EXPECT_TRUE(AreFp8Experts(config, moe));
  config.weight_block = 32;
  EXPECT_FALSE(AreFp8Experts(config, moe));
  moe.expert_dtype = model::DType::kBF16;
  EXPECT_FALSE(AreFp8Experts(config, moe));
}

}  // namespace
}  // namespace tessera::worker
