#include "model/tensors/checkpoint.h"

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <memory>
#include <random>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

#include "model/tensors/safetensors_writer.h"

namespace tessera::model {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

// A fresh folder per test.
class CheckpointTest : public testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = testing::TempDir() + "checkpoint_XXXXXX";
    ASSERT_NE(mkdtemp(pattern.data()), nullptr);
    folder_ = pattern;
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }

  std::string Path(std::string_view name) const {
    return folder_ + "/" + std::string(name);
  }

  void WriteText(std::string_view name, std::string_view text) const {
    std::ofstream(Path(name), std::ios::binary) << text;
  }

  // Writes a file with the named F32 tensors, each [2] and holding `value`.
  void WriteShard(std::string_view name, const std::vector<std::string>& tensors,
                  float value = 1.0F) const {
    SafetensorsWriter writer;
    const std::vector<float> values(2, value);
    for (const std::string& tensor : tensors) {
      ASSERT_TRUE(writer.AddValues(tensor, {2}, std::span<const float>(values)).ok());
    }
    ASSERT_TRUE(writer.Write(Path(name)).ok());
  }

  // Two shards and an index that agrees with them.
  void WriteTwoShards() const {
    WriteShard("one.safetensors", {"a", "c"}, 1.0F);
    WriteShard("two.safetensors", {"b"}, 2.0F);
    WriteIndex(R"("a":"one.safetensors","b":"two.safetensors","c":"one.safetensors")");
  }
  void WriteIndex(std::string_view map) const {
    WriteText(
        "model.safetensors.index.json",
        R"({"metadata":{"total_size":24},"weight_map":{)" + std::string(map) + "}}");
  }

  void ExpectDataLoss(std::string_view message) const {
    const absl::Status status = Checkpoint::Open(folder_).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss) << status;
    EXPECT_THAT(std::string(status.message()), HasSubstr(std::string(message)));
  }

  std::string folder_;
};

TEST_F(CheckpointTest, FindsTensorsAcrossShards) {
  WriteTwoShards();
  const auto checkpoint = Checkpoint::Open(folder_);
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
  EXPECT_THAT((*checkpoint)->names(), ElementsAre("a", "b", "c"));
  EXPECT_THAT((*checkpoint)->files(), ElementsAre("one.safetensors", "two.safetensors"));
  EXPECT_EQ((*checkpoint)->total_bytes(), 24u);
  const auto b = (*checkpoint)->Find("b");
  ASSERT_TRUE(b.ok()) << b.status();
  EXPECT_EQ(b->name, "b");
  EXPECT_EQ(b->num_elements(), 2);
  float first = 0;
  std::memcpy(&first, b->data.data(), sizeof(first));
  EXPECT_EQ(first, 2.0F);
  EXPECT_EQ((*checkpoint)->Find("d").status().code(), absl::StatusCode::kNotFound);
}

TEST_F(CheckpointTest, OneFileNeedsNoIndex) {
  WriteShard("model.safetensors", {"x", "y"});
  const auto checkpoint = Checkpoint::Open(folder_);
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
  EXPECT_THAT((*checkpoint)->names(), ElementsAre("x", "y"));
}

TEST_F(CheckpointTest, RequireSaysWhatWasFoundAndExpected) {
  WriteShard("model.safetensors", {"x"});
  const auto checkpoint = Checkpoint::Open(folder_);
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
  const std::vector<int64_t> two = {2};
  const std::vector<int64_t> square = {2, 2};
  EXPECT_TRUE((*checkpoint)->Require("x", DType::kF32, two).ok());
  EXPECT_EQ((*checkpoint)->Require("z", DType::kF32, two).status().code(),
            absl::StatusCode::kNotFound);
  const absl::Status shape = (*checkpoint)->Require("x", DType::kF32, square).status();
  EXPECT_EQ(shape.code(), absl::StatusCode::kDataLoss);
  EXPECT_EQ(shape.message(), "tensor x: found F32 [2], expected F32 [2, 2]");
  EXPECT_EQ((*checkpoint)->Require("x", DType::kBF16, two).status().message(),
            "tensor x: found F32 [2], expected BF16 [2]");
}

TEST_F(CheckpointTest, DigestFollowsHeadersAndConfigButNotWeights) {
  const auto digest = [this] { return Checkpoint::Open(folder_).value()->digest(); };
  WriteShard("model.safetensors", {"x"});
  const std::string without_config = digest();
  EXPECT_THAT(without_config, testing::MatchesRegex("[0-9a-f]{64}"));
  WriteText("config.json", "{}");
  const std::string with_config = digest();
  EXPECT_NE(with_config, without_config);
  WriteShard("model.safetensors", {"x"}, 5.0F);
  EXPECT_EQ(digest(), with_config);
  WriteShard("model.safetensors", {"y"}, 5.0F);
  EXPECT_NE(digest(), with_config);
}

TEST_F(CheckpointTest, EmptyFolderIsNotFoundAndTwoLayoutsAreRefused) {
  EXPECT_EQ(Checkpoint::Open(folder_).status().code(), absl::StatusCode::kNotFound);
  WriteTwoShards();
  WriteShard("model.safetensors", {"x"});
  EXPECT_EQ(Checkpoint::Open(folder_).status().code(),
            absl::StatusCode::kInvalidArgument);
}

TEST_F(CheckpointTest, IndexAndShardsMustAgree) {
  WriteTwoShards();
  WriteIndex(R"("a":"one.safetensors","b":"one.safetensors","c":"one.safetensors")");
  ExpectDataLoss(
      "tensor b: the index puts it in one.safetensors, which does not have it");
  WriteIndex(R"("b":"two.safetensors","c":"one.safetensors")");
  ExpectDataLoss("tensor a: one.safetensors has it, but the index does not put it there");
  WriteIndex(R"("a":"one.safetensors","b":"two.safetensors","c":"gone.safetensors")");
  ExpectDataLoss("the index names gone.safetensors, which does not exist");
  WriteShard("two.safetensors", {"b", "c"});
  WriteIndex(R"("a":"one.safetensors","b":"two.safetensors","c":"one.safetensors")");
  ExpectDataLoss("tensor c: two.safetensors has it");
}

TEST_F(CheckpointTest, ShardNamesStayInTheFolder) {
  WriteShard("one.safetensors", {"a"});
  for (const char* name :
       {R"("../one.safetensors")", R"("/tmp/one.safetensors")", R"("x/one.safetensors")",
        R"("x\\one.safetensors")", R"("")", R"(".safetensors")", R"("one.bin")",
        R"("one\u0000.safetensors")", "7", "null"}) {
    WriteIndex(std::string("\"a\":") + name);
    ExpectDataLoss("tensor a: ");
  }
}

TEST_F(CheckpointTest, IndexOfAnotherStructureIsRefused) {
  WriteShard("one.safetensors", {"a"});
  for (const char* text :
       {"", "[]", "{}", R"({"weight_map":[]})", R"({"weight_map":{}})",
        R"({"weight_map":{"a":"one.safetensors","a":"one.safetensors"}})",
        R"({"weight_map":{"a":"one.safetensors"})"}) {
    WriteText("model.safetensors.index.json", text);
    ExpectDataLoss("model.safetensors.index.json");
  }
}

TEST_F(CheckpointTest, CorruptShardIsNamed) {
  WriteTwoShards();
  std::filesystem::resize_file(Path("two.safetensors"),
                               std::filesystem::file_size(Path("two.safetensors")) - 1);
  ExpectDataLoss("ends at byte 8 of the data, which has 7 bytes");
}

TEST_F(CheckpointTest, FlippedBytesNeverCrash) {
  constexpr uint32_t kSeed = 4711;
  SCOPED_TRACE(kSeed);
  std::mt19937 generator(kSeed);
  WriteShard("model.safetensors", {"a", "b", "c"});
  std::string good;
  {
    std::ifstream in(Path("model.safetensors"), std::ios::binary);
    good.assign(std::istreambuf_iterator<char>(in), {});
  }
  for (int round = 0; round < 300; ++round) {
    std::string file = good;
    for (auto flips = 1 + generator() % 3; flips > 0; --flips) {
      file[generator() % file.size()] ^= static_cast<char>(1 << (generator() % 8));
    }
    WriteText("model.safetensors", file);
    const auto checkpoint = Checkpoint::Open(folder_);
    if (!checkpoint.ok()) {
      ASSERT_EQ(checkpoint.status().code(), absl::StatusCode::kDataLoss);
      continue;
    }
    // Reading every byte shows that each tensor lies inside the mapping.
    std::string bytes;
    for (const std::string& name : (*checkpoint)->names()) {
      const std::span<const std::byte> data = (*checkpoint)->Find(name).value().data;
      bytes.append(reinterpret_cast<const char*>(data.data()), data.size());
    }
    ASSERT_EQ(bytes.size(), (*checkpoint)->total_bytes());
  }
}

TEST_F(CheckpointTest, OpenFileTakesAnyName) {
  WriteShard("golden.safetensors", {"logits"});
  const auto checkpoint = Checkpoint::OpenFile(Path("golden.safetensors"));
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
  EXPECT_THAT((*checkpoint)->names(), ElementsAre("logits"));
  EXPECT_EQ(Checkpoint::OpenFile(Path("absent.safetensors")).status().code(),
            absl::StatusCode::kNotFound);
}

}  // namespace
}  // namespace tessera::model
