#include "model/config/config_overrides.h"

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

#include "model/config/model_config.h"
#include "tests/testing/config_documents.h"

namespace tessera::model {
namespace {

using tessera::testing::ReadText;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr const char* kFlash = "tests/data/configs/deepseek_v4_flash.json";
constexpr const char* k0731 = "tests/data/configs/deepseek_v4_flash_0731.json";
constexpr const char* kV41 = "tests/data/configs/deepseek_v4.1_flash.json";

absl::StatusOr<ModelConfig> Parse(const char* path,
                                  const std::vector<std::string>& overrides) {
  return ParseModelConfig(ReadText(path), overrides);
}

TEST(ConfigOverrides, LayersAreCutFromTheEnd) {
  const auto flash = Parse(kFlash, {"num_hidden_layers=4"});
  ASSERT_TRUE(flash.ok()) << flash.status();
  EXPECT_EQ(flash->num_layers, 4);
  EXPECT_EQ(flash->num_draft_layers, 1);
  EXPECT_THAT(flash->compressed.ratios, ElementsAre(0, 0, 4, 128, 0));
  EXPECT_EQ(flash->num_hash_layers, 3);
  EXPECT_EQ(Parse(kFlash, {"num_hidden_layers=2"})->num_hash_layers, 2);
  const auto v3 = Parse("tests/data/configs/deepseek_v3.json", {"num_hidden_layers=2"});
  ASSERT_TRUE(v3.ok()) << v3.status();
  EXPECT_EQ(v3->num_dense_layers, 2);
}

TEST(ConfigOverrides, TheDrafterTapsTheLastLayersThatAreLeft) {
  const auto config = Parse(k0731, {"num_hidden_layers=4"});
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_THAT(config->dspark->targets, ElementsAre(1, 2, 3));
  EXPECT_EQ(config->num_draft_layers, 3);
  EXPECT_THAT(Parse(k0731, {"num_hidden_layers=2"})->dspark->targets, ElementsAre(0, 1));
}

TEST(ConfigOverrides, SourcesAndTablesThatAreGoneAreForgotten) {
  const auto config = Parse(kV41, {"num_hidden_layers=9"});
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_THAT(config->compressed.kv_sources, ElementsAre(-1, -1, 2, 2, 2, 2, 2, 2, 8));
  EXPECT_EQ(config->compressed.candidate_source, -1);
  EXPECT_THAT(config->engram->layer_ids, ElementsAre(1));
  EXPECT_THAT(config->engram->num_embeddings, ElementsAre(384006168));
  EXPECT_THAT(config->dspark->targets, ElementsAre(6, 7, 8));
  EXPECT_FALSE(Parse(kV41, {"num_hidden_layers=1"})->engram.has_value());
  EXPECT_EQ(Parse(kV41, {"num_hidden_layers=21"})->compressed.candidate_source, 20);
}

// Every cut of every published model is a model.
TEST(ConfigOverrides, EveryCutIsAValidConfig) {
  for (const char* path :
       {kFlash, k0731, kV41, "tests/data/configs/deepseek_v4_pro.json",
        "tests/data/configs/deepseek_v3.json", "tests/data/configs/deepseek_v3.2.json"}) {
    const int64_t layers = Parse(path, {})->num_layers;
    for (int64_t n = 1; n <= layers; ++n) {
      std::vector<std::string> overrides = {"num_hidden_layers=" + std::to_string(n)};
      if (std::string(path) == kV41) {
        overrides.push_back("engram_vocab_size=1000");  // primes of its own take long
      }
      const auto config = Parse(path, overrides);
      EXPECT_TRUE(config.ok()) << path << " " << n << ": " << config.status();
    }
  }
}

TEST(ConfigOverrides, DraftLayersComeAndGo) {
  const auto none = Parse(k0731, {"num_nextn_predict_layers=0"});
  ASSERT_TRUE(none.ok()) << none.status();
  EXPECT_EQ(none->draft, DraftKind::kNone);
  EXPECT_EQ(none->compressed.ratios.size(), 43u);
  EXPECT_EQ(Parse(k0731, {"num_nextn_predict_layers=2"})->num_draft_layers, 2);
  EXPECT_EQ(Parse(kFlash, {"num_nextn_predict_layers=0"})->draft, DraftKind::kNone);
}

TEST(ConfigOverrides, RowsFollowTheirBase) {
  const auto config = Parse(kV41, {"engram_vocab_size=400"});
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_LT(config->engram->num_embeddings.front(), 20000);
  EXPECT_THAT(std::string(Parse(kV41, {"engram_vocab_size=400",
                                       "engram_num_embeddings=[384006168,384016682]"})
                              .status()
                              .message()),
              HasSubstr("expected the sums of the primes"));
}

TEST(ConfigOverrides, ValuesAreJsonOrText) {
  const auto config = Parse(
      kFlash, {"n_routed_experts=16", "expert_dtype=fp8", "rope_scaling.factor=8.5"});
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ(config->moe.num_experts, 16);
  EXPECT_EQ(config->moe.expert_dtype, DType::kF8E4M3);
  EXPECT_EQ(config->compressed_rope.yarn->factor, 8.5);
  EXPECT_EQ(Parse(kV41, {"quantization_config.expert_dtype=fp8"})->moe.expert_dtype,
            DType::kF8E4M3);
  EXPECT_EQ(Parse(kV41, {"n_routed_experts=16"})->moe.num_experts, 16);
  EXPECT_EQ(Parse(kV41, {"image_token_id=7"})->image_token_id, 7);
}

TEST(ConfigOverrides, WhatCannotBeIsRefused) {
  for (const auto& [override, message] : std::vector<std::pair<std::string, std::string>>{
           {"num_hidden_layers", "override \"num_hidden_layers\", expected KEY=VALUE"},
           {"=4", "expected KEY=VALUE"},
           {"num_hidden_layers=44", "is 44, expected at most 43"},
           {"num_hidden_layers=0", "num_hidden_layers is 0"},
           {"num_hidden_layers=x", "num_hidden_layers is \"x\""},
           {"num_nextn_predict_layers=9", "num_nextn_predict_layers is 9"},
           {"nothing.x=1", "has no object nothing"},
           {"n_routed_expert=16", "has no field n_routed_expert"},
           {"rope_scaling.factr=8", "has no field factr"},
           {"vocab_size=-1", "vocab_size is -1"},
           {"compress_ratios=[]", "compress_ratios has 0 entries"}}) {
    const absl::Status status = Parse(kFlash, {override}).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << override;
    EXPECT_THAT(std::string(status.message()), HasSubstr(message)) << override;
  }
}

}  // namespace
}  // namespace tessera::model
