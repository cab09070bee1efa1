#include "engram_store/disk/row_fetch.h"

#include <vector>

#include "gtest/gtest.h"

#include "engram_store/disk/scripted_file.h"

namespace tessera::engram_store {
namespace {

std::vector<FetchExtent> Plan(const DiskTable& table, const std::vector<uint32_t>& rows) {
  std::vector<MissingRow> missing;
  for (const uint32_t row : rows) {
    missing.push_back({.row = row, .place = 0});
  }
  std::vector<FetchExtent> extents;
  PlanExtents(table, missing, &extents);
  return extents;
}

TEST(PlanExtents, RowsOfNeighbouringPagesAreReadAtOnceUpToABound) {
  // 16 rows to a page.
  ScriptedTable file({.layer_id = 1,
                      .column_rows = {4001},
                      .width = 128,
                      .format = model::DType::kBF16});
  const auto table = file.Open();
  EXPECT_TRUE(Plan(*table, {}).empty());
  const auto apart = Plan(*table, {3, 100, 101, 116, 160});
  ASSERT_EQ(apart.size(), 3u);
  EXPECT_EQ(apart[0].pages, (PageRun{.first = 0, .count = 1}));
  EXPECT_EQ(apart[1].pages, (PageRun{.first = 6, .count = 2}));
  EXPECT_EQ(apart[1].first, 1u);
  EXPECT_EQ(apart[1].count, 3u);
  EXPECT_EQ(apart[2].pages, (PageRun{.first = 10, .count = 1}));
  std::vector<uint32_t> all;
  for (uint32_t row = 0; row < 640; ++row) {
    all.push_back(row);
  }
  const auto runs = Plan(*table, all);
  ASSERT_EQ(runs.size(), 3u);
  EXPECT_EQ(runs[0].pages, (PageRun{.first = 0, .count = kMaxExtentPages}));
  EXPECT_EQ(runs[2].pages, (PageRun{.first = 32, .count = 8}));
  EXPECT_EQ(runs[2].first + runs[2].count, 640u);
}

TEST(PlanExtents, ARowOfManyPagesHasARunOfItsOwn) {
  ScriptedTable file(
      {.layer_id = 1, .column_rows = {5}, .width = 50000, .format = model::DType::kBF16});
  const auto table = file.Open();
  const auto extents = Plan(*table, {0, 1, 4});
  ASSERT_EQ(extents.size(), 3u);
  EXPECT_EQ(extents[1].pages, table->PagesOf(1));
  EXPECT_LE(extents[1].pages.count, table->max_row_pages());
}

}  // namespace
}  // namespace tessera::engram_store
