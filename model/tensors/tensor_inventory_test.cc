#include "model/tensors/tensor_inventory.h"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "gtest/gtest.h"

#include "model/config/model_config.h"
#include "model/tensors/checkpoint.h"
#include "tests/testing/config_documents.h"
#include "tests/testing/listed_checkpoint.h"

namespace tessera::model {
namespace {

using tessera::testing::Demo;
using tessera::testing::ListedCheckpoint;

ModelConfig DemoConfig() { return ParseModelConfig(Demo().dump()).value(); }

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
  for (const char* family : {"v3", "v3_bf16", "v32", "v4", "v4_0731", "v41"}) {
    const std::string folder = std::string("tests/data/") + family;
    const auto config = LoadModelConfig(folder);
    ASSERT_TRUE(config.ok()) << config.status();
    const auto checkpoint = Checkpoint::Open(folder);
    ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
    EXPECT_TRUE(ValidateCheckpoint(*config, **checkpoint).ok())
        << ValidateCheckpoint(*config, **checkpoint);
    std::vector<std::string> names;
    for (const ExpectedTensor& tensor :
         TensorInventory(*config, DefaultEngramRowFormat(*config))) {
      names.push_back(tensor.name);
    }
    std::sort(names.begin(), names.end());
    EXPECT_EQ(names, (*checkpoint)->names()) << family;
  }
}

class ValidateCheckpointTest : public ::testing::Test {
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
       {"models/demo", "tests/data/v3", "tests/data/v3_bf16", "tests/data/v32",
        "tests/data/v4", "tests/data/v4_0731", "tests/data/v41"}) {
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
    // Prime steps visit tensors of every kind; all of them would take a minute.
    const size_t step = inventory.size() < 450 ? 1 : inventory.size() < 1000 ? 3 : 37;
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
