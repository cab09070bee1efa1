#include <algorithm>
#include <cstdint>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"

#include "model/config/model_config.h"
#include "model/tensors/layout_inventories.h"
#include "model/tensors/tensor_inventory.h"
#include "tests/testing/config_documents.h"
#include "tests/testing/listed_checkpoint.h"

namespace tessera::model {
namespace {

using nlohmann::json;
using tessera::testing::ListedCheckpoint;
using tessera::testing::ReadDocument;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Pair;

constexpr const char* kFlash = "tests/data/configs/deepseek_v4_flash.json";
constexpr const char* k0731 = "tests/data/configs/deepseek_v4_flash_0731.json";
constexpr const char* kPro = "tests/data/configs/deepseek_v4_pro.json";
constexpr const char* kV41 = "tests/data/configs/deepseek_v4.1_flash.json";

ModelConfig Config(const json& document) {
  return ParseModelConfig(document.dump()).value();
}

std::vector<ExpectedTensor> Inventory(const ModelConfig& config) {
  return NativeInventory(config, DefaultEngramRowFormat(config));
}

std::vector<ExpectedTensor> InventoryOf(const char* path) {
  return Inventory(Config(ReadDocument(path)));
}

int64_t CountPrefixed(const std::vector<ExpectedTensor>& tensors,
                      const std::string& prefix) {
  return std::count_if(tensors.begin(), tensors.end(), [&](const ExpectedTensor& tensor) {
    return tensor.name.starts_with(prefix);
  });
}

// The numbers of the published indexes.
TEST(NativeInventory, HasTheTensorsOfV4FlashByType) {
  std::map<DType, int64_t> counts;
  const std::vector<ExpectedTensor> tensors = InventoryOf(kFlash);
  for (const ExpectedTensor& tensor : tensors) {
    ++counts[tensor.dtype];
  }
  EXPECT_EQ(tensors.size(), 69187u);
  EXPECT_THAT(counts, ElementsAre(Pair(DType::kF32, 417), Pair(DType::kBF16, 433),
                                  Pair(DType::kF8E4M3, 375), Pair(DType::kF8E8M0, 34167),
                                  Pair(DType::kI8, 33792), Pair(DType::kI64, 3)));
}

TEST(NativeInventory, HasTheTensorsOfTheOtherPublishedModels) {
  EXPECT_EQ(InventoryOf(kPro).size(), 145116u);
  const std::vector<ExpectedTensor> with_drafter = InventoryOf(k0731);
  EXPECT_EQ(with_drafter.size(), 72317u);
  EXPECT_EQ(CountPrefixed(with_drafter, "mtp."), 4705);
  const std::vector<ExpectedTensor> v41 = InventoryOf(kV41);
  EXPECT_EQ(v41.size(), 96085u);
  EXPECT_EQ(CountPrefixed(v41, "mtp."), 2401);
  EXPECT_EQ(CountPrefixed(v41, "vision."), 259);
  EXPECT_EQ(CountPrefixed(v41, "aligner."), 4);
  EXPECT_EQ(CountPrefixed(v41, "image_"), 3);
  EXPECT_EQ(CountPrefixed(v41, "layers.1.engram."), 6);
  EXPECT_EQ(CountPrefixed(v41, "layers.14.engram."), 6);
}

TEST(NativeInventory, NamesAreDistinct) {
  for (const char* path : {kFlash, k0731, kV41}) {
    std::set<std::string> names;
    for (const ExpectedTensor& tensor : InventoryOf(path)) {
      EXPECT_TRUE(names.insert(tensor.name).second) << path << " " << tensor.name;
    }
  }
}

TEST(NativeInventory, ShapesAreThoseOfThePublishedFiles) {
  std::map<std::string, ExpectedTensor> found;
  for (ExpectedTensor& tensor : InventoryOf(kPro)) {
    found.emplace(tensor.name, std::move(tensor));
  }
  EXPECT_THAT(found["layers.2.attn.wq_b.weight"].shape, ElementsAre(65536, 1536));
  EXPECT_THAT(found["layers.2.attn.wo_a.weight"].shape, ElementsAre(16384, 4096));
  EXPECT_THAT(found["layers.2.attn.wo_a.scale"].shape, ElementsAre(128, 32));
  EXPECT_THAT(found["layers.2.attn.wo_b.weight"].shape, ElementsAre(7168, 16384));
  EXPECT_THAT(found["layers.2.attn.compressor.ape"].shape, ElementsAre(4, 1024));
  EXPECT_THAT(found["layers.3.attn.compressor.ape"].shape, ElementsAre(128, 512));
  EXPECT_THAT(found["layers.2.attn.indexer.compressor.wkv.weight"].shape,
              ElementsAre(256, 7168));
  EXPECT_FALSE(found.contains("layers.3.attn.indexer.wq_b.weight"));
  EXPECT_THAT(found["layers.0.ffn.gate.tid2eid"].shape, ElementsAre(129280, 6));
  EXPECT_FALSE(found.contains("layers.0.ffn.gate.bias"));
  EXPECT_THAT(found["mtp.0.ffn.gate.bias"].shape, ElementsAre(384));
  EXPECT_THAT(found["mtp.0.hc_head_fn"].shape, ElementsAre(4, 4 * 7168));
  EXPECT_FALSE(found.contains("mtp.0.attn.compressor.ape"));
}

// V4.1: compressors where entries are made, indexers where a selection is.
TEST(NativeInventory, SharedEntriesHaveOneMaker) {
  std::set<std::string> names;
  for (const ExpectedTensor& tensor : InventoryOf(kV41)) {
    names.insert(tensor.name);
  }
  EXPECT_TRUE(names.contains("layers.2.attn.compressor.wgate.weight"));
  EXPECT_FALSE(names.contains("layers.20.attn.compressor.wgate.weight"));
  EXPECT_TRUE(names.contains("layers.20.attn.compressor.wkv.weight"));
  EXPECT_TRUE(names.contains("layers.20.attn.indexer.wk.weight"));
  EXPECT_TRUE(names.contains("layers.24.attn.indexer.wq_b.weight"));
  EXPECT_FALSE(names.contains("layers.24.attn.indexer.wk.weight"));
  EXPECT_FALSE(names.contains("layers.24.attn.compressor.wkv.weight"));
  EXPECT_FALSE(names.contains("layers.25.attn.indexer.wq_b.weight"));
  EXPECT_FALSE(names.contains("layers.2.attn.compressor.ape"));
  EXPECT_FALSE(names.contains("hc_head_fn"));
  EXPECT_TRUE(names.contains("mtp.2.ffn.gate.bias_vl"));
  EXPECT_TRUE(names.contains("mtp.2.markov_head.embed.weight"));
}

TEST(NativeInventory, Bf16CheckpointsHaveNoScales) {
  json document = ReadDocument("tests/data/v4/config.json");
  document.erase("quantization_config");
  document.erase("expert_dtype");
  for (const ExpectedTensor& tensor : Inventory(Config(document))) {
    EXPECT_THAT(tensor.name, ::testing::Not(::testing::EndsWith(".scale")));
  }
}

// V4-Base: routed experts in the format of the linears.
TEST(NativeInventory, ExpertsMayBeInFp8Blocks) {
  json document = ReadDocument("tests/data/v4/config.json");
  document["expert_dtype"] = "fp8";
  for (const ExpectedTensor& tensor : Inventory(Config(document))) {
    if (tensor.name == "layers.1.ffn.experts.7.w2.scale") {
      EXPECT_EQ(tensor.dtype, DType::kF8E8M0);
      EXPECT_THAT(tensor.shape, ElementsAre(2, 1));
      return;
    }
  }
  FAIL() << "no scales of experts";
}

TEST(NativeInventory, DraftCopiesOfEmbeddingAndHeadAreSkipped) {
  const ModelConfig config = Config(ReadDocument("tests/data/v4/config.json"));
  ListedCheckpoint checkpoint(Inventory(config));
  checkpoint.Set("mtp.0.emb.tok_emb.weight", DType::kBF16, {320, 160});
  checkpoint.Set("mtp.0.head.weight", DType::kBF16, {320, 160});
  EXPECT_TRUE(ValidateCheckpoint(config, checkpoint).ok());
  checkpoint.Set("mtp.1.head.weight", DType::kBF16, {320, 160});
  EXPECT_THAT(std::string(ValidateCheckpoint(config, checkpoint).message()),
              HasSubstr("tensor mtp.1.head.weight: found in the checkpoint"));
}

// Nobody reads the tower: it must be whole, of whatever format.
TEST(NativeInventory, TheVisionTowerIsNamedAndNotLookedInto) {
  json document = ReadDocument("tests/data/v41/config.json");
  document["vision_config"] = ReadDocument(kV41)["vision_config"];
  const ModelConfig config = Config(document);
  ListedCheckpoint checkpoint(Inventory(config));
  checkpoint.Set("aligner.w1.weight", DType::kF32, {7});
  EXPECT_TRUE(ValidateCheckpoint(config, checkpoint).ok());
  checkpoint.Remove("vision.blocks.31.mlp.w2.weight");
  EXPECT_THAT(std::string(ValidateCheckpoint(config, checkpoint).message()),
              HasSubstr("vision.blocks.31.mlp.w2.weight: is missing"));
  // Without a tower in the config its tensors are foreign.
  const ModelConfig text = Config(ReadDocument("tests/data/v41/config.json"));
  ListedCheckpoint foreign(Inventory(text));
  foreign.Set("vision.norm.weight", DType::kBF16, {1024});
  EXPECT_FALSE(ValidateCheckpoint(text, foreign).ok());
}

}  // namespace
}  // namespace tessera::model
