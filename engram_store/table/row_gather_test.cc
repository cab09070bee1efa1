#include "engram_store/table/row_gather.h"

#include <algorithm>
#include <random>
#include <vector>

#include "gtest/gtest.h"

namespace tessera::engram_store {
namespace {

class RowGatherTest : public ::testing::TestWithParam<size_t> {};

TEST_P(RowGatherTest, CopiesRowsInTheOrderAskedFor) {
  const size_t row_bytes = GetParam();
  constexpr size_t kRows = 100;
  std::mt19937 random(3);
  std::vector<std::byte> rows(kRows * row_bytes);
  std::generate(rows.begin(), rows.end(),
                [&] { return static_cast<std::byte>(random()); });
  for (const size_t count : {0u, 1u, 5u, 12u, 13u, 300u}) {
    std::vector<uint32_t> ids(count);
    std::generate(ids.begin(), ids.end(),
                  [&] { return static_cast<uint32_t>(random() % kRows); });
    std::vector<std::byte> out(count * row_bytes + 1, std::byte{0xAA});
    GatherRows(rows.data(), row_bytes, ids, out.data());
    for (size_t i = 0; i < count; ++i) {
      ASSERT_TRUE(std::equal(out.begin() + static_cast<ptrdiff_t>(i * row_bytes),
                             out.begin() + static_cast<ptrdiff_t>((i + 1) * row_bytes),
                             rows.begin() + static_cast<ptrdiff_t>(ids[i] * row_bytes)));
    }
    EXPECT_EQ(out.back(), std::byte{0xAA});
  }
}

TEST_P(RowGatherTest, ShardsGiveWhatTheWholeTableGives) {
  const size_t row_bytes = GetParam();
  const std::vector<uint32_t> columns = {37, 63};
  const ShardMap map = ShardMap::Create(columns, 3).value();
  std::mt19937 random(4);
  std::vector<std::byte> rows(map.num_rows() * row_bytes);
  std::generate(rows.begin(), rows.end(),
                [&] { return static_cast<std::byte>(random()); });
  std::vector<std::vector<std::byte>> shards(map.num_shards());
  std::vector<const std::byte*> starts;
  for (uint32_t shard = 0; shard < map.num_shards(); ++shard) {
    for (uint32_t column = 0; column < map.num_columns(); ++column) {
      const RowRange range = map.Range(shard, column);
      const auto first =
          rows.begin() + static_cast<ptrdiff_t>(range.first_row * row_bytes);
      shards[shard].insert(shards[shard].end(), first,
                           first + static_cast<ptrdiff_t>(range.count * row_bytes));
    }
    starts.push_back(shards[shard].data());
  }
  for (const size_t count : {0u, 1u, 11u, 12u, 13u, 300u}) {
    std::vector<uint32_t> ids(count);
    std::generate(ids.begin(), ids.end(),
                  [&] { return static_cast<uint32_t>(random() % map.num_rows()); });
    std::vector<std::byte> expected(count * row_bytes + 1, std::byte{0xAA});
    std::vector<std::byte> out = expected;
    GatherRows(rows.data(), row_bytes, ids, expected.data());
    GatherShardedRows(map, starts, row_bytes, ids, out.data());
    EXPECT_EQ(out, expected) << count;
  }
}

INSTANTIATE_TEST_SUITE_P(RowBytes, RowGatherTest, ::testing::Values(33, 64, 264, 512));

TEST(CheckRowIds, NamesTheFirstBadId) {
  EXPECT_TRUE(CheckRowIds({}, 0).ok());
  EXPECT_TRUE(CheckRowIds(std::vector<uint32_t>{0, 9}, 10).ok());
  const absl::Status status = CheckRowIds(std::vector<uint32_t>{1, 10, 11}, 10);
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(status.message(), "engram row 10 at 1, expected below 10");
}

}  // namespace
}  // namespace tessera::engram_store
