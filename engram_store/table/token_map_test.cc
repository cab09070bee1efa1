#include "engram_store/table/token_map.h"

#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

#include "engram_store/hashing/engram_hash.h"
#include "engram_store/table/checkpoint_tables.h"
#include "model/tensors/safetensors_writer.h"
#include "tests/testing/status_matchers.h"

namespace tessera::engram_store {
namespace {

using ::tessera::testing::StatusIs;
using ::testing::HasSubstr;

constexpr const char* kV41 = "tests/data/v41";

// A folder for files beside the V4.1 checkpoint, whose tensors are opened elsewhere.
class TokenMapTest : public ::testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = ::testing::TempDir() + "token_map_XXXXXX";
    ASSERT_NE(mkdtemp(pattern.data()), nullptr);
    folder_ = pattern;
    config_ = model::LoadModelConfig(kV41).value();
    checkpoint_ = model::Checkpoint::Open(kV41).value();
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }

  template <typename T>
  void WriteMap(const std::string& tensor, const std::vector<T>& values) const {
    model::SafetensorsWriter writer;
    ASSERT_TRUE(writer
                    .AddValues(tensor, {static_cast<int64_t>(values.size())},
                               std::span<const T>(values))
                    .ok());
    ASSERT_TRUE(writer.Write(folder_ + "/compressed_ids.safetensors").ok());
  }

  std::string folder_;
  model::ModelConfig config_;
  std::unique_ptr<model::Checkpoint> checkpoint_;
};

TEST_F(TokenMapTest, AFileBesideTheCheckpointStandsInForATokenizer) {
  const auto map = LoadTokenMap(config_, *checkpoint_, kV41);
  ASSERT_TRUE(map.ok()) << map.status();
  EXPECT_EQ(map->size(), 320u);
  EXPECT_TRUE(LoadEngramHash(config_, *checkpoint_, kV41).ok());
}

// The map of the published tokenizer, as recorded from another implementation.
TEST_F(TokenMapTest, WithoutAFileTheTokenizerGivesIt) {
  const auto recorded = model::Checkpoint::OpenFile(
      "tests/data/tokenizer/engram_compressed_ids.safetensors");
  ASSERT_TRUE(recorded.ok()) << recorded.status();
  config_.vocab_size = 129280;
  const auto map = LoadTokenMap(config_, *checkpoint_, "tests/data/tokenizer");
  ASSERT_TRUE(map.ok()) << map.status();
  ASSERT_EQ(map->size(), 129280u);
  const model::TensorRef expected =
      (*recorded)->Find((*recorded)->names().front()).value();
  EXPECT_EQ(std::memcmp(map->data(), expected.data.data(), expected.data.size()), 0);
}

TEST_F(TokenMapTest, TheTensorOfTheCheckpointComesFirst) {
  const auto config = model::LoadModelConfig("models/demo").value();
  const auto checkpoint = model::Checkpoint::Open("models/demo").value();
  WriteMap<int32_t>("engram.compressed_ids", {0, 1});
  EXPECT_EQ(LoadTokenMap(config, *checkpoint, folder_)->size(), 4096u);
}

TEST_F(TokenMapTest, NoFileAndNoTokenizerIsNamed) {
  EXPECT_THAT(LoadTokenMap(config_, *checkpoint_, folder_).status(),
              StatusIs(absl::StatusCode::kNotFound,
                       HasSubstr("neither compressed_ids.safetensors nor a tokenizer")));
}

TEST_F(TokenMapTest, FilesThatHoldSomethingElseAreRefusedByName) {
  WriteMap<float>("engram.compressed_ids", {0, 1});
  EXPECT_THAT(LoadTokenMap(config_, *checkpoint_, folder_).status(),
              StatusIs(absl::StatusCode::kDataLoss,
                       HasSubstr("compressed_ids.safetensors: engram.compressed_ids: "
                                 "found F32 of 2 elements")));
  WriteMap<int32_t>("engram.compressed_ids", std::vector<int32_t>(321, 0));
  EXPECT_THAT(LoadTokenMap(config_, *checkpoint_, folder_).status(),
              StatusIs(absl::StatusCode::kDataLoss, HasSubstr("expected I32 [320]")));
  WriteMap<int32_t>("another", {0, 1});
  EXPECT_THAT(LoadTokenMap(config_, *checkpoint_, folder_).status(),
              StatusIs(absl::StatusCode::kNotFound, HasSubstr("engram.compressed_ids")));
}

// What the hash asks of a map.
TEST_F(TokenMapTest, AMapOfAnotherCompressedVocabularyIsRefused) {
  WriteMap<int32_t>("engram.compressed_ids", std::vector<int32_t>(320, 0));
  EXPECT_THAT(LoadEngramHash(config_, *checkpoint_, folder_).status(),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       HasSubstr("engram_compressed_vocab_size")));
}

}  // namespace
}  // namespace tessera::engram_store
