#include "engram_store/client/shard_router.h"

#include <random>
#include <set>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace tessera::engram_store {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

TEST(RoutedRows, EachRowIsAskedForOnceInOrderOfFirstUse) {
  const ShardMap map = ShardMap::Create(std::vector<uint32_t>{10}, 2).value();
  RoutedRows routed;
  routed.Route(map, std::vector<uint32_t>{7, 1, 7, 7, 0, 1});
  EXPECT_THAT(routed.local_rows(0), ElementsAre(1u, 0u));
  EXPECT_THAT(routed.local_rows(1), ElementsAre(2u));
}

TEST(RoutedRows, AnEmptyRequestAsksForNothing) {
  const ShardMap map = ShardMap::Create(std::vector<uint32_t>{10}, 3).value();
  RoutedRows routed;
  routed.Route(map, std::vector<uint32_t>{5});
  routed.Route(map, {});
  for (uint32_t shard = 0; shard < 3; ++shard) {
    EXPECT_THAT(routed.local_rows(shard), IsEmpty());
  }
}

TEST(RoutedRows, PiecesOfEveryShardFillTheWholeRequest) {
  constexpr uint32_t kSeed = 99;
  constexpr size_t kRowBytes = 4;
  const ShardMap map = ShardMap::Create(std::vector<uint32_t>{53, 59, 61}, 3).value();
  std::mt19937 random(kSeed);
  RoutedRows routed;
  for (int repeat = 0; repeat < 50; ++repeat) {
    std::vector<uint32_t> ids(random() % 400);
    for (uint32_t& id : ids) {
      id = static_cast<uint32_t>(random() % map.num_rows());
    }
    routed.Route(map, ids);
    std::vector<ShardedRow> out(ids.size(), ShardedRow{.shard = 77, .local_row = 0});
    static_assert(sizeof(ShardedRow) == 2 * kRowBytes);
    for (uint32_t shard = 0; shard < 3; ++shard) {
      const std::span<const uint32_t> rows = routed.local_rows(shard);
      EXPECT_EQ(std::set<uint32_t>(rows.begin(), rows.end()).size(), rows.size());
      for (size_t first = 0; first < rows.size(); first += 7) {
        std::vector<ShardedRow> piece;
        for (size_t i = first; i < std::min(rows.size(), first + 7); ++i) {
          piece.push_back({.shard = shard, .local_row = rows[i]});
        }
        routed.Scatter(shard, first, std::as_bytes(std::span(piece)), sizeof(ShardedRow),
                       reinterpret_cast<std::byte*>(out.data()));
      }
    }
    for (size_t i = 0; i < ids.size(); ++i) {
      ASSERT_EQ(out[i], map.Locate(ids[i])) << "seed " << kSeed;
    }
  }
}

}  // namespace
}  // namespace tessera::engram_store
