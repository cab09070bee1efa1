#include "model/tensors/tensor_inventory.h"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <fstream>
#include <functional>
#include <iterator>
#include <map>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"

#include "common/status.h"

namespace tessera::model {
namespace {

using nlohmann::json;
using testing::ElementsAre;

std::string ReadText(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  EXPECT_TRUE(in.good()) << path;
  return {std::istreambuf_iterator<char>(in), {}};
}

// A checkpoint that has names, dtypes and shapes but no bytes.
class ListedCheckpoint final : public Checkpoint {
 public:
  explicit ListedCheckpoint(const std::vector<ExpectedTensor>& tensors) {
    for (const ExpectedTensor& tensor : tensors) {
      Set(tensor.name, tensor.dtype, tensor.shape);
    }
  }
  void Set(const std::string& name, DType dtype, std::vector<int64_t> shape) {
    tensors_[name] = {dtype, std::move(shape)};
    Rename();
  }
  void Remove(const std::string& name) {
    ASSERT_EQ(tensors_.erase(name), 1u) << name;
    Rename();
  }

  absl::StatusOr<TensorRef> Find(std::string_view name) const override {
    const auto found = tensors_.find(name);
    if (found == tensors_.end()) {
      return StatusF(absl::StatusCode::kNotFound, "no tensor {}", name);
    }
    return TensorRef{found->first, found->second.first, found->second.second, {}};
  }
  const std::vector<std::string>& names() const override {
    if (names_.empty()) {
      for (const auto& [name, tensor] : tensors_) {
        names_.push_back(name);
      }
    }
    return names_;
  }
  uint64_t total_bytes() const override { return 0; }
  const std::string& digest() const override { return digest_; }

 private:
  void Rename() { names_.clear(); }

  std::map<std::string, std::pair<DType, std::vector<int64_t>>, std::less<>> tensors_;
  mutable std::vector<std::string> names_;
  std::string digest_;
};

ModelConfig DemoConfig(const std::function<void(json&)>& change = [](json&) {}) {
  json document = json::parse(ReadText("models/demo/config.json"));
  change(document);
  return ParseModelConfig(document.dump()).value();
}

TEST(TensorInventory, IsExactlyWhatTheDemoCheckpointHolds) {
  const auto config = LoadModelConfig("models/demo");
  ASSERT_TRUE(config.ok()) << config.status();
  const auto checkpoint = Checkpoint::Open("models/demo");
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
  EXPECT_EQ(FindEngramRowFormat(*config, **checkpoint), EngramRowFormat::kFp8);
  EXPECT_TRUE(ValidateCheckpoint(*config, **checkpoint).ok())
      << ValidateCheckpoint(*config, **checkpoint);
  std::vector<std::string> names;
  int64_t bytes = 0;
  for (const ExpectedTensor& tensor : TensorInventory(*config, EngramRowFormat::kFp8)) {
    names.push_back(tensor.name);
    bytes += tensor.num_bytes();
  }
  std::sort(names.begin(), names.end());
  EXPECT_EQ(names, (*checkpoint)->names());
  EXPECT_EQ(bytes, static_cast<int64_t>((*checkpoint)->total_bytes()));
}

TEST(TensorInventory, IsWhatThePublishedLayoutsHold) {
  for (const char* family : {"v3", "v3_bf16", "v32"}) {
    const std::string folder = std::string("tests/data/") + family;
    const auto config = LoadModelConfig(folder);
    ASSERT_TRUE(config.ok()) << config.status();
    const auto checkpoint = Checkpoint::Open(folder);
    ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
    EXPECT_TRUE(ValidateCheckpoint(*config, **checkpoint).ok())
        << ValidateCheckpoint(*config, **checkpoint);
    std::vector<std::string> names;
    for (const ExpectedTensor& tensor :
         TensorInventory(*config, EngramRowFormat::kBf16)) {
      names.push_back(tensor.name);
    }
    std::sort(names.begin(), names.end());
    EXPECT_EQ(names, (*checkpoint)->names()) << family;
  }
}

TEST(TensorInventory, TheIndexNormOfV32IsF32OrBf16AndNothingElse) {
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

TEST(TensorInventory, FormatsFollowTheConfig) {
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

TEST(TensorInventory, OptionalPartsComeAndGo) {
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

class ValidateCheckpointTest : public testing::Test {
 protected:
  void ExpectRefused(const std::string& message) const {
    const absl::Status status = ValidateCheckpoint(config_, checkpoint_);
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
    EXPECT_EQ(status.message(), message);
  }

  const ModelConfig config_ = DemoConfig();
  ListedCheckpoint checkpoint_{TensorInventory(config_, EngramRowFormat::kFp8)};
};

TEST_F(ValidateCheckpointTest, AcceptsTheInventory) {
  EXPECT_TRUE(ValidateCheckpoint(config_, checkpoint_).ok());
}

TEST_F(ValidateCheckpointTest, AcceptsBf16RowsWithoutScales) {
  const ListedCheckpoint bf16(TensorInventory(config_, EngramRowFormat::kBf16));
  EXPECT_TRUE(ValidateCheckpoint(config_, bf16).ok());
}

// Every tensor of every family: removed, under another name, of another type, of another
// shape.
TEST(ValidateEveryFamily, AnyOneTensorThatIsWrongIsRefusedByName) {
  for (const char* folder :
       {"models/demo", "tests/data/v3", "tests/data/v3_bf16", "tests/data/v32"}) {
    const auto config = LoadModelConfig(folder);
    ASSERT_TRUE(config.ok()) << config.status();
    const std::vector<ExpectedTensor> inventory =
        TensorInventory(*config, DefaultEngramRowFormat(*config));
    ListedCheckpoint checkpoint(inventory);
    const auto expect_refused = [&](const std::string& name, const char* what) {
      const absl::Status status = ValidateCheckpoint(*config, checkpoint);
      EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << name << " " << what;
      EXPECT_NE(status.message().find(name), std::string_view::npos)
          << name << " " << what << ": " << status.message();
    };
    // A prime step visits tensors of every kind; all of them would take a minute.
    const size_t step = inventory.size() < 1000 ? 1 : 37;
    for (size_t i = 0; i < inventory.size(); i += step) {
      const ExpectedTensor& tensor = inventory[i];
      checkpoint.Remove(tensor.name);
      expect_refused(tensor.name, "removed");
      checkpoint.Set(tensor.name + "_other", tensor.dtype, tensor.shape);
      expect_refused(tensor.name, "renamed");
      checkpoint.Remove(tensor.name + "_other");
      if (!tensor.name.ends_with("engram.embed.weight")) {  // its type is a choice
        checkpoint.Set(tensor.name, DType::kF64, tensor.shape);
        expect_refused(tensor.name, "retyped");
      }
      std::vector<int64_t> shape = tensor.shape;
      ++shape.front();
      checkpoint.Set(tensor.name, tensor.dtype, shape);
      expect_refused(tensor.name, "reshaped");
      checkpoint.Set(tensor.name, tensor.dtype, tensor.shape);
    }
    EXPECT_TRUE(ValidateCheckpoint(*config, checkpoint).ok()) << folder;
  }
}

TEST_F(ValidateCheckpointTest, NamesAMissingTensor) {
  checkpoint_.Remove("model.layers.4.mlp.experts.17.up_proj.scale");
  ExpectRefused(
      "tensor model.layers.4.mlp.experts.17.up_proj.scale: is missing, "
      "expected F8_E8M0 [32, 6]");
}

TEST_F(ValidateCheckpointTest, NamesAnotherShapeOrDType) {
  checkpoint_.Set("model.norm.weight", DType::kF32, {192});
  ExpectRefused("tensor model.norm.weight: found F32 [192], expected BF16 [192]");
  checkpoint_.Set("model.norm.weight", DType::kBF16, {191});
  ExpectRefused("tensor model.norm.weight: found BF16 [191], expected BF16 [192]");
}

TEST_F(ValidateCheckpointTest, NamesATensorOfNoModel) {
  checkpoint_.Set("model.layers.0.self_attn.q_proj.weight", DType::kBF16, {1});
  ExpectRefused(
      "tensor model.layers.0.self_attn.q_proj.weight: found in the checkpoint, "
      "expected no such tensor in a v4_mla model of this config");
}

TEST_F(ValidateCheckpointTest, TablesMustAgreeOnTheirFormat) {
  checkpoint_.Set("model.layers.3.engram.embed.weight", DType::kBF16, {37956, 32});
  ExpectRefused(
      "tensor model.layers.3.engram.embed.weight: found BF16 [37956, 32], "
      "expected F8_E4M3 [37956, 32]");
}

TEST_F(ValidateCheckpointTest, CompressedIdsMayBeFewerThanTheVocabulary) {
  checkpoint_.Set("engram.compressed_ids", DType::kI32, {4000});
  EXPECT_TRUE(ValidateCheckpoint(config_, checkpoint_).ok());
  checkpoint_.Set("engram.compressed_ids", DType::kI32, {4097});
  ExpectRefused(
      "tensor engram.compressed_ids: found I32 [4097], expected I32 [4096] or fewer");
  checkpoint_.Set("engram.compressed_ids", DType::kI32, {0});
  ExpectRefused(
      "tensor engram.compressed_ids: found I32 [0], expected I32 [4096] or fewer");
}

TEST_F(ValidateCheckpointTest, DraftCopiesOfEmbeddingAndHeadAreSkipped) {
  checkpoint_.Set("model.layers.5.embed_tokens.weight", DType::kBF16, {4096, 192});
  checkpoint_.Set("model.layers.5.shared_head.head.weight", DType::kBF16, {4096, 192});
  EXPECT_TRUE(ValidateCheckpoint(config_, checkpoint_).ok());
  checkpoint_.Set("model.layers.4.embed_tokens.weight", DType::kBF16, {4096, 192});
  EXPECT_FALSE(ValidateCheckpoint(config_, checkpoint_).ok());
}

}  // namespace
}  // namespace tessera::model
