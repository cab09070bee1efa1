#include "engram_store/table/table_writer.h"

#include <fstream>
#include <iterator>
#include <string>

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

TEST(TableWriter, PackingIntoAFileGivesTheFileOfAPackedTable) {
  // Some 24,000 rows of 264 bytes: whole blocks that end inside rows, and a part.
  const TableLayout layout = {
      .layer_id = 1, .column_rows = {25013, 24001, 23017}, .width = 256};
  const RandomTensors tensors(layout, 7);
  for (uint32_t shard = 0; shard < 3; ++shard) {
    PackOptions options;
    options.shard = {.shard = shard, .num_shards = 3};
    const auto table = EngramTable::Pack(layout, tensors.view(), options).value();
    const std::string path = testing::TempDir() + "/table_writer_test.whole.tbl";
    const std::string packed = testing::TempDir() + "/table_writer_test.packed.tbl";
    ASSERT_TRUE(WriteTableFile(*table, path, 2).ok());
    ASSERT_TRUE(PackTableFile(layout, tensors.view(), options.shard, table->info().digest,
                              packed, 2)
                    .ok());
    const auto contents = [](const std::string& name) {
      std::ifstream file(name, std::ios::binary);
      return std::string(std::istreambuf_iterator<char>(file), {});
    };
    EXPECT_GT(contents(path).size(), 6000000u);
    EXPECT_TRUE(contents(path) == contents(packed)) << "shard " << shard;
    unlink(path.c_str());
    unlink(packed.c_str());
  }
}

TEST(TableWriter, AScaleThatNoRowMayHaveLeavesNoFile) {
  const TableLayout layout = {.layer_id = 1, .column_rows = {53, 59}, .width = 32};
  RandomTensors tensors(layout, 7);
  tensors.scales()[70] = std::byte{255};
  const std::string path = testing::TempDir() + "/table_writer_test.scale.tbl";
  EXPECT_EQ(
      PackTableFile(layout, tensors.view(), {}, std::string(64, 'a'), path, 1).code(),
      absl::StatusCode::kDataLoss);
  EXPECT_NE(access(path.c_str(), F_OK), 0);
  EXPECT_NE(access((path + ".partial").c_str(), F_OK), 0);
}

}  // namespace
}  // namespace tessera::engram_store
