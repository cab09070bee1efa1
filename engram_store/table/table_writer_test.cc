#include "engram_store/table/table_writer.h"

#include "gtest/gtest.h"
#include <unistd.h>

#include "engram_store/table/random_tensors.h"

namespace tessera::engram_store {
namespace {

TEST(TableWriter, RefusesATableWithoutDigestAndAFolderThatIsNotThere) {
  const TableLayout layout = {.layer_id = 1, .column_rows = {53, 59}, .width = 32};
  PackOptions options;
  options.digest = "unknown";
  const auto nameless =
      EngramTable::Pack(layout, RandomTensors(layout, 1).view(), options).value();
  const std::string path = testing::TempDir() + "/table_writer_test.tbl";
  EXPECT_EQ(WriteTableFile(*nameless, path, 1).code(),
            absl::StatusCode::kInvalidArgument);
  EXPECT_NE(access(path.c_str(), F_OK), 0);

  const auto table =
      EngramTable::Pack(layout, RandomTensors(layout, 1).view(), {}).value();
  EXPECT_EQ(WriteTableFile(*table, testing::TempDir() + "/no/such/folder.tbl", 1).code(),
            absl::StatusCode::kUnavailable);
}

}  // namespace
}  // namespace tessera::engram_store
