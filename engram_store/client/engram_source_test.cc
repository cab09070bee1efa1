#include "engram_store/client/engram_source.h"

#include <cstddef>
#include <cstdint>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

#include "tests/testing/status_matchers.h"

namespace tessera::engram_store {
namespace {

using testing::StatusIs;

constexpr absl::StatusCode kInvalid = absl::StatusCode::kInvalidArgument;

class CheckRequestTest : public ::testing::Test {
 protected:
  CheckRequestTest() : tables_(2) {
    tables_[1].num_rows = 10;
    tables_[1].row_bytes = 8;
  }

  absl::Status Check(size_t table, const std::vector<uint32_t>& ids, size_t bytes) {
    const std::vector<std::byte> destination(bytes);
    return CheckRequest(tables_, table, ids, destination);
  }

  std::vector<TableInfo> tables_;
};

TEST_F(CheckRequestTest, TakesRowsOfATableAndNone) {
  EXPECT_THAT(Check(1, {0, 9, 9}, 24), testing::IsOk());
  EXPECT_THAT(Check(1, {}, 0), testing::IsOk());
}

TEST_F(CheckRequestTest, RefusesWhatCannotLand) {
  EXPECT_THAT(Check(2, {0}, 8), StatusIs(kInvalid));
  EXPECT_THAT(Check(1, {0, 10}, 16), StatusIs(kInvalid));
  EXPECT_THAT(Check(1, {0, 9}, 15), StatusIs(kInvalid));
  EXPECT_THAT(Check(1, {0, 9}, 24), StatusIs(kInvalid));
}

}  // namespace
}  // namespace tessera::engram_store
