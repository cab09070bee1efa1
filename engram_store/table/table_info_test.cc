#include "engram_store/table/table_info.h"

#include "gtest/gtest.h"

namespace tessera::engram_store {
namespace {

TableLayout Good() {
  return {.layer_id = 1,
          .column_rows = {7, 11},
          .width = 256,
          .format = model::DType::kF8E4M3};
}

TEST(TableLayout, RowBytesFollowTheFormat) {
  TableLayout layout = Good();
  EXPECT_EQ(layout.row_bytes(), 264);
  layout.format = model::DType::kBF16;
  EXPECT_EQ(layout.row_bytes(), 512);
  layout.format = model::DType::kF32;
  EXPECT_EQ(layout.row_bytes(), 0);
}

TEST(TableLayout, InfoSumsTheColumns) {
  const TableInfo info = Good().Info("d");
  EXPECT_EQ(info.num_rows, 18u);
  EXPECT_EQ(info.row_bytes, 264);
  EXPECT_EQ(info.digest, "d");
}

TEST(CheckLayout, RefusesSizesThatNoTableHas) {
  EXPECT_TRUE(CheckLayout(Good()).ok());
  TableLayout bad = Good();
  bad.column_rows.clear();
  EXPECT_FALSE(CheckLayout(bad).ok());
  bad = Good();
  bad.column_rows = {7, 0};
  EXPECT_FALSE(CheckLayout(bad).ok());
  bad = Good();
  bad.column_rows = {4294967295u, 1};
  EXPECT_FALSE(CheckLayout(bad).ok());
  for (const int64_t width : {-32, 0, 16, 48, 1 << 20}) {
    bad = Good();
    bad.width = width;
    EXPECT_FALSE(CheckLayout(bad).ok()) << width;
  }
  bad = Good();
  bad.format = model::DType::kF32;
  EXPECT_FALSE(CheckLayout(bad).ok());
  bad = Good();
  bad.layer_id = -1;
  EXPECT_FALSE(CheckLayout(bad).ok());
}

}  // namespace
}  // namespace tessera::engram_store
