#include "engram_store/table/checkpoint_tables.h"

#include <algorithm>
#include <cstring>
#include <string>

#include "gtest/gtest.h"

namespace tessera::engram_store {
namespace {

constexpr char kDemoModel[] = "models/demo";
constexpr char kGoldens[] = "tests/data/demo/golden.safetensors";

template <typename T>
std::vector<T> Values(const model::Checkpoint& checkpoint, const std::string& name) {
  const model::TensorRef tensor = checkpoint.Find(name).value();
  std::vector<T> values(tensor.data.size() / sizeof(T));
  std::memcpy(values.data(), tensor.data.data(), tensor.data.size());
  return values;
}

class CheckpointTablesTest : public ::testing::Test {
 protected:
  CheckpointTablesTest()
      : config_(model::LoadModelConfig(kDemoModel).value()),
        checkpoint_(model::Checkpoint::Open(kDemoModel).value()),
        hash_(LoadEngramHash(config_, *checkpoint_, kDemoModel).value()) {}

  model::ModelConfig config_;
  std::unique_ptr<model::Checkpoint> checkpoint_;
  EngramHash hash_;
};

TEST_F(CheckpointTablesTest, RowIdsOfTheDemoModelAreThoseOfItsGoldens) {
  const auto goldens = model::Checkpoint::OpenFile(kGoldens).value();
  for (const char* prompt :
       {"prompt1", "prompt2", "prompt7", "prompt33", "prompt150", "prompt300"}) {
    const std::vector<int32_t> ids =
        Values<int32_t>(*goldens, std::string(prompt) + ".ids");
    for (int64_t layer = 0; layer < 2; ++layer) {
      std::vector<uint32_t> rows(ids.size() * static_cast<size_t>(hash_.num_columns()));
      hash_.RowIds(layer, ids, 0, true, {}, rows);
      const std::string name =
          std::string(prompt) + ".engram." +
          std::to_string(config_.engram->layer_ids[static_cast<size_t>(layer)]) + ".rows";
      const std::vector<int64_t> expected = Values<int64_t>(*goldens, name);
      EXPECT_TRUE(std::equal(rows.begin(), rows.end(), expected.begin(), expected.end()))
          << name;
    }
  }
}

TEST_F(CheckpointTablesTest, PackedRowsAreTheCheckpointsRows) {
  const LoadedTables loaded = LoadEngramTables(config_, hash_, *checkpoint_, {}).value();
  ASSERT_EQ(loaded.tables.size(), 2u);
  const std::span<const std::byte> weights =
      checkpoint_->Find("model.layers.3.engram.embed.weight")->data;
  const std::span<const std::byte> scales =
      checkpoint_->Find("model.layers.3.engram.embed.scale")->data;
  const std::span<const std::byte> rows = loaded.tables[1]->rows();
  for (const size_t row : {0u, 1u, 37955u}) {
    EXPECT_EQ(std::memcmp(rows.data() + row * 33, weights.data() + row * 32, 32), 0);
    EXPECT_EQ(rows[row * 33 + 32], scales[row]);
  }
}

TEST_F(CheckpointTablesTest, TheExpectedManifestFitsTheLoadedOneOfEveryShard) {
  const EngramManifest expected =
      LoadExpectedManifest(config_, hash_, *checkpoint_).value();
  EXPECT_TRUE(expected.tables[0].digest.empty());
  PackOptions options;
  options.shard = {.shard = 1, .num_shards = 2};
  const LoadedTables shard =
      LoadEngramTables(config_, hash_, *checkpoint_, options).value();
  const LoadedTables whole = LoadEngramTables(config_, hash_, *checkpoint_, {}).value();
  EXPECT_EQ(shard.manifest, whole.manifest);
  EXPECT_TRUE(CheckManifest(expected, shard.manifest).ok());
  EXPECT_LT(shard.tables[0]->rows().size(), whole.tables[0]->rows().size() / 2 + 33 * 12);
}

TEST_F(CheckpointTablesTest, AConfigOfOtherTablesIsRefused) {
  model::ModelConfig other = config_;
  other.engram->layer_ids = {1, 2};
  other.engram->num_embeddings.clear();
  const EngramHash hash = LoadEngramHash(other, *checkpoint_, kDemoModel).value();
  EXPECT_EQ(LoadEngramTables(other, hash, *checkpoint_, {}).status().code(),
            absl::StatusCode::kNotFound);
  other = config_;
  other.engram->head_dim = 64;
  EXPECT_EQ(LoadEngramTables(other, hash_, *checkpoint_, {}).status().code(),
            absl::StatusCode::kDataLoss);
  other.engram->compressed_vocab_size = 3077;
  EXPECT_EQ(LoadEngramHash(other, *checkpoint_, kDemoModel).status().code(),
            absl::StatusCode::kInvalidArgument);
}

// The tables of V4.1 have the names of its layout.
TEST(CheckpointTables, RowIdsAndRowsOfV41AreThoseOfItsGoldens) {
  const std::string folder = "tests/data/v41";
  const model::ModelConfig config = model::LoadModelConfig(folder).value();
  const auto checkpoint = model::Checkpoint::Open(folder).value();
  const EngramHash hash = LoadEngramHash(config, *checkpoint, folder).value();
  const LoadedTables loaded = LoadEngramTables(config, hash, *checkpoint, {}).value();
  ASSERT_EQ(loaded.tables.size(), 2u);
  const auto goldens =
      model::Checkpoint::OpenFile(folder + "/golden.safetensors").value();
  const std::vector<int32_t> ids = Values<int32_t>(*goldens, "prompt130.ids");
  for (int64_t layer = 0; layer < 2; ++layer) {
    std::vector<uint32_t> rows(ids.size() * static_cast<size_t>(hash.num_columns()));
    hash.RowIds(layer, ids, 0, true, {}, rows);
    const std::vector<int64_t> expected = Values<int64_t>(
        *goldens,
        "prompt130.engram." +
            std::to_string(config.engram->layer_ids[static_cast<size_t>(layer)]) +
            ".rows");
    EXPECT_TRUE(std::equal(rows.begin(), rows.end(), expected.begin(), expected.end()));
  }
  const std::span<const std::byte> weights =
      checkpoint->Find("layers.4.engram.embed.weight")->data;
  EXPECT_EQ(
      std::memcmp(loaded.tables[1]->rows().data() + 66 * 5, weights.data() + 64 * 5, 64),
      0);
}

}  // namespace
}  // namespace tessera::engram_store
