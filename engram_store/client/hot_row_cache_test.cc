#include "engram_store/client/hot_row_cache.h"

#include <cstring>
#include <random>
#include <vector>

#include "gtest/gtest.h"

#include "tests/testing/status_matchers.h"

namespace tessera::engram_store {
namespace {

using ::tessera::testing::StatusIs;

constexpr size_t kRowBytes = 24;

std::unique_ptr<HotRowCache> Cache(uint64_t capacity_bytes, uint64_t num_rows = 100000) {
  return HotRowCache::Create({.capacity_bytes = capacity_bytes,
                              .max_row_bytes = kRowBytes,
                              .num_rows = num_rows})
      .value();
}

// One set: every row competes with every other.
std::unique_ptr<HotRowCache> OneSet() { return Cache(1 << 20, 1); }

std::vector<std::byte> Row(uint32_t table, uint32_t row) {
  std::vector<std::byte> bytes(kRowBytes);
  std::memcpy(bytes.data(), &table, sizeof(table));
  std::memcpy(bytes.data() + sizeof(table), &row, sizeof(row));
  return bytes;
}

bool Insert(HotRowCache* cache, uint32_t table, uint32_t row) {
  return cache->Insert(table, row, Row(table, row));
}

TEST(HotRowCache, RefusesSizesThatHoldNothing) {
  HotRowCacheOptions options = {
      .capacity_bytes = 8 * kRowBytes, .max_row_bytes = kRowBytes, .num_rows = 100};
  EXPECT_THAT(HotRowCache::Create(options).status(),
              StatusIs(absl::StatusCode::kInvalidArgument));
  options.capacity_bytes = 1 << 20;
  options.max_row_bytes = 0;
  EXPECT_THAT(HotRowCache::Create(options).status(),
              StatusIs(absl::StatusCode::kInvalidArgument));
}

TEST(HotRowCache, StaysWithinItsCapacityAndTakesNoMoreThanTheRowsNeed) {
  for (const uint64_t capacity : {500u, 5000u, 100001u}) {
    EXPECT_LE(Cache(capacity)->num_bytes(), capacity);
    EXPECT_GT(Cache(capacity)->num_bytes(), capacity / 2);
  }
  EXPECT_LE(Cache(uint64_t{1} << 50, 1000)->max_rows(), 2 * 1000u + HotRowCache::kWays);
}

TEST(HotRowCache, FindsWhatWasInsertedAndNothingElse) {
  const auto cache = Cache(1 << 20);
  EXPECT_EQ(cache->Find(0, 0), nullptr);
  EXPECT_FALSE(Insert(cache.get(), 1, 7));
  EXPECT_EQ(cache->Find(0, 7), nullptr);
  EXPECT_EQ(cache->Find(7, 1), nullptr);
  const std::byte* row = cache->Find(1, 7);
  ASSERT_NE(row, nullptr);
  EXPECT_EQ(std::memcmp(row, Row(1, 7).data(), kRowBytes), 0);
}

TEST(HotRowCache, ARowThatIsHereIsNotInsertedTwice) {
  const auto cache = OneSet();
  for (int repeat = 0; repeat < 20; ++repeat) {
    EXPECT_FALSE(Insert(cache.get(), 0, 7));
  }
  for (uint32_t row = 100; row < 100 + HotRowCache::kWays - 1; ++row) {
    EXPECT_FALSE(Insert(cache.get(), 0, row));
  }
  EXPECT_NE(cache->Find(0, 7), nullptr);
}

TEST(HotRowCache, ARowInUseOutlivesAScan) {
  const auto cache = OneSet();
  uint64_t evictions = 0;
  Insert(cache.get(), 0, 7);
  for (uint32_t row = 1000; row < 1100; ++row) {
    ASSERT_NE(cache->Find(0, 7), nullptr) << row;
    evictions += Insert(cache.get(), 0, row) ? 1 : 0;
  }
  EXPECT_EQ(evictions, 101 - HotRowCache::kWays);
  EXPECT_NE(cache->Find(0, 1099), nullptr);
  EXPECT_EQ(cache->Find(0, 1000), nullptr);
}

TEST(HotRowCache, RowsFoundTwiceOutliveAnyNumberOfRowsThatAreUsedOnce) {
  const auto cache = OneSet();
  for (const uint32_t row : {7u, 8u}) {
    Insert(cache.get(), 0, row);
    EXPECT_NE(cache->Find(0, row), nullptr);
  }
  for (uint32_t row = 1000; row < 2000; ++row) {
    Insert(cache.get(), 0, row);
  }
  EXPECT_NE(cache->Find(0, 7), nullptr);
  EXPECT_NE(cache->Find(0, 8), nullptr);
}

TEST(HotRowCache, ARowThatIsNoLongerUsedGivesWayToRowsThatAre) {
  const auto cache = OneSet();
  Insert(cache.get(), 0, 7);
  EXPECT_NE(cache->Find(0, 7), nullptr);
  for (uint32_t row = 1000; row < 1100; ++row) {
    Insert(cache.get(), 0, row);
    EXPECT_NE(cache->Find(0, row), nullptr);
  }
  EXPECT_EQ(cache->Peek(0, 7), nullptr);
}

TEST(HotRowCache, TheUseThatARowWasInsertedForDoesNotKeepIt) {
  const auto cache = OneSet();
  for (uint32_t row = 0; row < 2; ++row) {
    cache->Insert(0, row, Row(0, row), /*ahead=*/true);
    EXPECT_NE(cache->Find(0, row), nullptr);
  }
  EXPECT_NE(cache->Find(0, 1), nullptr);
  for (uint32_t row = 1000; row < 1100; ++row) {
    Insert(cache.get(), 0, row);
  }
  EXPECT_EQ(cache->Peek(0, 0), nullptr);
  EXPECT_NE(cache->Peek(0, 1), nullptr);
}

TEST(HotRowCache, AFullSetOfRowsInUseStillTakesANewOne) {
  const auto cache = OneSet();
  for (uint32_t row = 0; row < HotRowCache::kWays; ++row) {
    Insert(cache.get(), 0, row);
    EXPECT_NE(cache->Find(0, row), nullptr);
  }
  EXPECT_TRUE(Insert(cache.get(), 0, 99));
  EXPECT_NE(cache->Find(0, 99), nullptr);
}

TEST(HotRowCache, WithRoomForAllRowsHardlyAnyIsEvicted) {
  const auto cache = Cache(uint64_t{1} << 40, 10000);
  uint64_t evictions = 0;
  for (uint32_t row = 0; row < 10000; ++row) {
    evictions += Insert(cache.get(), 0, row) ? 1 : 0;
  }
  EXPECT_LE(evictions, 300u);
}

TEST(HotRowCache, EveryHitHasTheBytesOfItsRow) {
  constexpr uint32_t kSeed = 5;
  RecordProperty("seed", static_cast<int>(kSeed));
  std::mt19937 random(kSeed);
  const auto cache = Cache(3000);
  int hits = 0;
  for (int i = 0; i < 20000; ++i) {
    const uint32_t table = static_cast<uint32_t>(random() % 2);
    const uint32_t row = static_cast<uint32_t>(random() % 200);
    const std::byte* found = cache->Find(table, row);
    if (found == nullptr) {
      Insert(cache.get(), table, row);
      found = cache->Find(table, row);
    } else {
      ++hits;
    }
    ASSERT_EQ(std::memcmp(found, Row(table, row).data(), kRowBytes), 0);
  }
  EXPECT_GT(hits, 1000);
  EXPECT_LT(hits, 10000);
}

}  // namespace
}  // namespace tessera::engram_store
