#include "engram_store/table/engram_manifest.h"

#include <functional>
#include <numeric>

#include "gtest/gtest.h"

namespace tessera::engram_store {
namespace {

EngramManifest Demo() {
  model::EngramConfig config;
  config.layer_ids = {1, 3};
  config.max_ngram = 4;
  config.num_heads = 4;
  config.head_dim = 32;
  config.bucket_bases = {3000, 3000, 3000};
  config.compressed_vocab_size = 3076;
  config.pad_token_id = 2;
  std::vector<int32_t> ids(3076);
  std::iota(ids.begin(), ids.end(), 0);
  const EngramHash hash = EngramHash::Create(config, ids).value();
  const std::vector<std::string> digests = {"aa", "bb"};
  return MakeManifest(config, hash, model::DType::kF8E4M3, digests).value();
}

TEST(EngramManifest, HoldsWhatTheHashDerived) {
  const EngramManifest manifest = Demo();
  ASSERT_EQ(manifest.tables.size(), 2u);
  EXPECT_EQ(manifest.tables[0].layout.num_rows(), 36560u);
  EXPECT_EQ(manifest.tables[1].layout.column_rows[0], 3109u);
  EXPECT_EQ(manifest.tables[1].multipliers[0], 886769541817087u);
  EXPECT_TRUE(CheckManifest(manifest, manifest).ok());
}

TEST(EngramManifest, EveryConstantThatDiffersIsRefusedAndChangesTheShardId) {
  const std::vector<std::function<void(EngramManifest*)>> changes = {
      [](EngramManifest* m) { m->contract = "demo"; },
      [](EngramManifest* m) { m->max_ngram = 3; },
      [](EngramManifest* m) { m->num_heads = 5; },
      [](EngramManifest* m) { ++m->compressed_vocab_size; },
      [](EngramManifest* m) { m->pad_token_id = 0; },
      [](EngramManifest* m) { m->seed = 1; },
      [](EngramManifest* m) { m->tables.pop_back(); },
      [](EngramManifest* m) { m->tables[1].layout.layer_id = 2; },
      [](EngramManifest* m) { m->tables[1].layout.width = 64; },
      [](EngramManifest* m) { m->tables[1].layout.format = model::DType::kBF16; },
      [](EngramManifest* m) {
        std::swap(m->tables[0].layout.column_rows[0], m->tables[0].layout.column_rows[1]);
      },
      [](EngramManifest* m) { m->tables[0].multipliers[3] ^= 2; },
  };
  const EngramManifest good = Demo();
  for (size_t i = 0; i < changes.size(); ++i) {
    EngramManifest other = good;
    changes[i](&other);
    EXPECT_EQ(CheckManifest(good, other).code(), absl::StatusCode::kFailedPrecondition)
        << i;
    EXPECT_NE(ShardId(good, {}), ShardId(other, {})) << i;
  }
}

TEST(EngramManifest, ADigestThatDiffersIsDataLossUnlessNoneWasExpected) {
  EngramManifest expected = Demo();
  EngramManifest found = expected;
  found.tables[1].digest = "cc";
  EXPECT_EQ(CheckManifest(expected, found).code(), absl::StatusCode::kDataLoss);
  EXPECT_NE(ShardId(expected, {}), ShardId(found, {}));
  expected.tables[1].digest.clear();
  EXPECT_TRUE(CheckManifest(expected, found).ok());
}

TEST(EngramManifest, TheShardIdNamesThePlace) {
  const EngramManifest manifest = Demo();
  const std::string id = ShardId(manifest, {.shard = 0, .num_shards = 2});
  EXPECT_NE(id, ShardId(manifest, {.shard = 1, .num_shards = 2}));
  EXPECT_NE(id, ShardId(manifest, {.shard = 0, .num_shards = 3}));
}

}  // namespace
}  // namespace tessera::engram_store
