// A table whose description would lead a device outside of it is refused.
#include "kernels/engram_table_view.h"

#include <array>
#include <functional>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace tessera::kernels {
namespace {

using testing::HasSubstr;

constexpr int64_t kRowBytes = 8;

// Columns of 5 and 3 rows in two shards: three and two rows, then two and one.
class TableView : public testing::Test {
 protected:
  EngramTableView View() const {
    const std::span<const std::byte> bytes(memory_);
    return {.shards = {bytes.first(5 * kRowBytes), bytes.subspan(5 * kRowBytes)},
            .columns = {{0, 5, 3}, {5, 3, 2}},
            .first_local = {0, 0, 3, 2},
            .row_bytes = kRowBytes};
  }
  void ExpectRefused(const std::function<void(EngramTableView&)>& damage,
                     const char* what) const {
    EngramTableView view = View();
    damage(view);
    const absl::Status status = CheckTableView(view);
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << what;
    EXPECT_THAT(status.ToString(), HasSubstr(what));
  }

  std::array<std::byte, 8 * kRowBytes> memory_ = {};
};

TEST_F(TableView, OfATableIsTaken) { EXPECT_TRUE(CheckTableView(View()).ok()); }

TEST_F(TableView, ThatLacksSomethingIsRefused) {
  ExpectRefused([](auto& view) { view.shards.clear(); }, "0 shards");
  ExpectRefused([](auto& view) { view.columns.clear(); }, "0 columns");
  ExpectRefused([](auto& view) { view.first_local.pop_back(); }, "3 places");
  ExpectRefused([](auto& view) { view.row_bytes = 0; }, "rows of 0 bytes");
}

TEST_F(TableView, ThatLeadsOutsideIsRefused) {
  ExpectRefused([](auto& view) { view.columns[0].num_rows = 0; }, "column 0: 0 rows");
  ExpectRefused([](auto& view) { view.columns[1].shard_rows = 0; }, "0 in each of 2");
  ExpectRefused([](auto& view) { view.columns[0].num_rows = 7; }, "column 0: 7 rows");
  ExpectRefused([](auto& view) { view.columns[1].num_rows = 4; }, "row 4 of shard 1");
  ExpectRefused([](auto& view) { view.first_local[2] = 4; }, "row 6 of shard 0");
}

TEST_F(TableView, WhoseIdsWouldWrapIsRefused) {
  EngramTableView view = View();
  view.columns[1].first_row = 0xfffffffdU;  // its last row has the last id
  EXPECT_TRUE(CheckTableView(view).ok());
  ExpectRefused([](auto& of) { of.columns[1].first_row = 0xfffffffeU; },
                "column 1: rows 4294967294 to 4294967297");
}

}  // namespace
}  // namespace tessera::kernels
