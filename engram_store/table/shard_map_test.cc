#include "engram_store/table/shard_map.h"

#include <algorithm>
#include <set>
#include <utility>

#include "gtest/gtest.h"

namespace tessera::engram_store {
namespace {

const std::vector<uint32_t>& Columns() {
  static const auto* const columns =
      new std::vector<uint32_t>{53, 59, 61, 67, 1009, 1013, 3, 2003};
  return *columns;
}

class ShardMapTest : public ::testing::TestWithParam<uint32_t> {};

TEST_P(ShardMapTest, EveryRowHasOnePlaceAndEveryPlaceOneRow) {
  const ShardMap map = ShardMap::Create(Columns(), GetParam()).value();
  std::set<std::pair<uint32_t, uint32_t>> places;
  for (uint32_t row = 0; row < map.num_rows(); ++row) {
    const ShardedRow place = map.Locate(row);
    ASSERT_LT(place.shard, map.num_shards());
    ASSERT_LT(place.local_row, map.num_local_rows(place.shard));
    ASSERT_TRUE(places.emplace(place.shard, place.local_row).second) << row;
  }
  uint64_t total = 0;
  for (uint32_t shard = 0; shard < map.num_shards(); ++shard) {
    total += map.num_local_rows(shard);
  }
  EXPECT_EQ(total, map.num_rows());
}

TEST_P(ShardMapTest, RangesSayTheSameAsLocate) {
  const ShardMap map = ShardMap::Create(Columns(), GetParam()).value();
  uint64_t covered = 0;
  for (uint32_t shard = 0; shard < map.num_shards(); ++shard) {
    for (uint32_t column = 0; column < map.num_columns(); ++column) {
      const RowRange range = map.Range(shard, column);
      covered += range.count;
      for (uint32_t i = 0; i < range.count; ++i) {
        ASSERT_EQ(map.Locate(range.first_row + i),
                  (ShardedRow{.shard = shard, .local_row = range.local_base + i}));
      }
    }
  }
  EXPECT_EQ(covered, map.num_rows());
}

INSTANTIATE_TEST_SUITE_P(ShardCounts, ShardMapTest,
                         ::testing::Values(1, 2, 3, 7, 24, 64));

TEST(ShardMap, EveryShardHoldsTheSameShareOfEveryColumn) {
  const std::vector<uint32_t> columns = {16000057, 16000079, 16000463};
  const ShardMap map = ShardMap::Create(columns, 7).value();
  for (uint32_t column = 0; column < 3; ++column) {
    uint32_t least = columns[column];
    uint32_t most = 0;
    for (uint32_t shard = 0; shard < 7; ++shard) {
      least = std::min(least, map.Range(shard, column).count);
      most = std::max(most, map.Range(shard, column).count);
    }
    EXPECT_LE(most - least, 7u);
  }
}

TEST(ShardMap, RefusesImpossibleShapes) {
  EXPECT_FALSE(ShardMap::Create({}, 1).ok());
  EXPECT_FALSE(ShardMap::Create(Columns(), 0).ok());
  EXPECT_FALSE(ShardMap::Create(Columns(), 4097).ok());
  EXPECT_FALSE(ShardMap::Create(std::vector<uint32_t>{5, 0}, 1).ok());
  EXPECT_FALSE(ShardMap::Create(std::vector<uint32_t>{4294967295u, 1}, 1).ok());
}

}  // namespace
}  // namespace tessera::engram_store
