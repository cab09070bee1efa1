#include <functional>
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
using tessera::testing::Demo;
using tessera::testing::ListedCheckpoint;
using ::testing::ElementsAre;

ModelConfig DemoConfig(const std::function<void(json&)>& change = [](json&) {}) {
  json document = Demo();
  change(document);
  return ParseModelConfig(document.dump()).value();
}

TEST(HuggingFaceInventory, TheIndexNormOfV32IsF32OrBf16AndNothingElse) {
  const auto config = LoadModelConfig("tests/data/v32");
  ASSERT_TRUE(config.ok()) << config.status();
  ListedCheckpoint checkpoint(TensorInventory(*config, EngramRowFormat::kBf16));
  const std::string name = "model.layers.1.self_attn.indexer.k_norm.bias";
  for (const DType dtype : {DType::kF32, DType::kBF16}) {
    checkpoint.Set(name, dtype, {128});
    EXPECT_TRUE(ValidateCheckpoint(*config, checkpoint).ok());
  }
  checkpoint.Set(name, DType::kF64, {128});
  EXPECT_EQ(ValidateCheckpoint(*config, checkpoint).message(),
            "tensor " + name + ": found F64 [128], expected F32 or BF16 [128]");
}

TEST(HuggingFaceInventory, FormatsFollowTheConfig) {
  const auto find = [](const ModelConfig& config, const std::string& name) {
    for (const ExpectedTensor& tensor : TensorInventory(config, EngramRowFormat::kBf16)) {
      if (tensor.name == name) {
        return tensor;
      }
    }
    return ExpectedTensor{};
  };
  const std::string expert = "model.layers.2.mlp.experts.255.down_proj.";
  const ModelConfig fp4 = DemoConfig();
  EXPECT_EQ(find(fp4, expert + "weight").dtype, DType::kI8);
  EXPECT_THAT(find(fp4, expert + "weight").shape, ElementsAre(192, 16));
  EXPECT_EQ(find(fp4, expert + "weight").num_parameters, 192 * 32);
  EXPECT_THAT(find(fp4, expert + "scale").shape, ElementsAre(192, 1));
  EXPECT_EQ(find(fp4, expert + "scale").num_parameters, 0);
  const ModelConfig fp8 = DemoConfig([](json& c) { c["expert_dtype"] = "fp8"; });
  EXPECT_EQ(find(fp8, expert + "weight").dtype, DType::kF8E4M3);
  EXPECT_THAT(find(fp8, expert + "weight_scale_inv").shape, ElementsAre(2, 1));
  const ModelConfig bf16 = DemoConfig([](json& c) {
    c.erase("quantization_config");
    c.erase("expert_dtype");
  });
  EXPECT_EQ(find(bf16, expert + "weight").dtype, DType::kBF16);
  EXPECT_TRUE(find(bf16, expert + "weight_scale_inv").name.empty());
  EXPECT_EQ(find(bf16, "model.layers.1.engram.wkv.weight").dtype, DType::kBF16);
}

TEST(HuggingFaceInventory, OptionalPartsComeAndGo) {
  const auto names = [](const ModelConfig& config) {
    std::set<std::string> result;
    for (const ExpectedTensor& tensor : TensorInventory(config, EngramRowFormat::kFp8)) {
      EXPECT_TRUE(result.insert(tensor.name).second) << tensor.name;
    }
    return result;
  };
  const std::set<std::string> all = names(DemoConfig());
  const std::set<std::string> plain = names(DemoConfig([](json& c) {
    c.erase("engram_layer_ids");
    c["num_nextn_predict_layers"] = 0;
    c["n_shared_experts"] = 0;
  }));
  EXPECT_TRUE(all.contains("engram.compressed_ids"));
  EXPECT_TRUE(all.contains("model.layers.5.eh_proj.weight"));
  EXPECT_FALSE(plain.contains("engram.compressed_ids"));
  for (const std::string& name : plain) {
    EXPECT_TRUE(all.contains(name)) << name;
    EXPECT_EQ(name.find("model.layers.5."), std::string::npos) << name;
    EXPECT_EQ(name.find("shared_experts"), std::string::npos) << name;
  }
  const std::set<std::string> demo =
      names(DemoConfig([](json& c) { c["engram_contract"] = "demo"; }));
  EXPECT_EQ(demo.size(), all.size() + 4);
  EXPECT_TRUE(demo.contains("model.layers.3.engram.conv_norm.weight"));
}

}  // namespace
}  // namespace tessera::model
