#include "engram_store/service/engram_shard.h"

#include <algorithm>

#include "gtest/gtest.h"

#include "engram_store/table/random_tensors.h"

namespace tessera::engram_store {
namespace {

constexpr ShardIndex kShard = {.shard = 1, .num_shards = 2};

class EngramShardTest : public ::testing::Test {
 protected:
  EngramShardTest()
      : layout_{.layer_id = 1, .column_rows = {53, 59}, .width = 32},
        tensors_(layout_, 3) {
    manifest_.contract = "v41";
    manifest_.tables.push_back(
        {.layout = layout_,
         .multipliers = {1},
         .digest = DigestTable(layout_, tensors_.view(), 1).value()});
  }

  std::vector<std::unique_ptr<EngramTable>> Tables() const {
    PackOptions options;
    options.shard = kShard;
    std::vector<std::unique_ptr<EngramTable>> tables;
    tables.push_back(EngramTable::Pack(layout_, tensors_.view(), options).value());
    return tables;
  }

  TableLayout layout_;
  RandomTensors tensors_;
  EngramManifest manifest_;
};

TEST_F(EngramShardTest, GivesTheRowsOfItsRanges) {
  const auto shard =
      EngramShard::Create({.max_rows_per_request = 10}, manifest_, Tables()).value();
  const ShardMap map = ShardMap::Create(layout_.column_rows, 2).value();
  const RowRange range = map.Range(1, 1);
  std::string rows;
  ASSERT_TRUE(shard
                  ->Lookup(shard->shard_id(), 0,
                           std::vector<uint32_t>{range.local_base, range.local_base + 1},
                           &rows)
                  .ok());
  std::vector<std::byte> expected = tensors_.PackedRow(range.first_row);
  const std::vector<std::byte> next = tensors_.PackedRow(range.first_row + 1);
  expected.insert(expected.end(), next.begin(), next.end());
  EXPECT_TRUE(std::ranges::equal(std::as_bytes(std::span(rows)), expected));
  EXPECT_EQ(shard->stats().rows, 2u);
}

TEST_F(EngramShardTest, RefusesBadLookupsAndAddsNothing) {
  const auto shard =
      EngramShard::Create({.max_rows_per_request = 10}, manifest_, Tables()).value();
  const std::string id = shard->shard_id();
  std::string rows = "x";
  EXPECT_EQ(shard->Lookup("other", 0, std::vector<uint32_t>{0}, &rows).code(),
            absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(shard->Lookup(id, 1, std::vector<uint32_t>{0}, &rows).code(),
            absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(shard->Lookup(id, 0, std::vector<uint32_t>{0xFFFFFFFF}, &rows).code(),
            absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(shard->Lookup(id, 0, std::vector<uint32_t>(11), &rows).code(),
            absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(rows, "x");
  EXPECT_EQ(shard->stats().errors, 4u);
}

TEST_F(EngramShardTest, RefusesTablesOfAnotherManifest) {
  EngramManifest other = manifest_;
  other.tables[0].digest = std::string(64, '0');
  EXPECT_EQ(EngramShard::Create({}, other, Tables()).status().code(),
            absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(EngramShard::Create({}, manifest_, {}).status().code(),
            absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace tessera::engram_store
