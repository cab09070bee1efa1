#include "engram_store/table/table_reader.h"

#include <algorithm>
#include <fstream>
#include <string>

#include "gtest/gtest.h"
#include <unistd.h>

#include "engram_store/table/random_tensors.h"
#include "engram_store/table/table_writer.h"

namespace tessera::engram_store {
namespace {

class TableReaderTest : public ::testing::Test {
 protected:
  // About 8,500 rows of 528 bytes: two whole blocks and a part.
  TableReaderTest()
      : path_(testing::TempDir() + "/table_reader_test.tbl"),
        layout_{.layer_id = 14, .column_rows = {9001, 8009}, .width = 512},
        tensors_(layout_, 4) {
    PackOptions options;
    options.shard = {.shard = 1, .num_shards = 2};
    table_ = EngramTable::Pack(layout_, tensors_.view(), options).value();
  }
  ~TableReaderTest() override { unlink(path_.c_str()); }

  std::string path_;
  TableLayout layout_;
  RandomTensors tensors_;
  std::unique_ptr<EngramTable> table_;
};

TEST_F(TableReaderTest, ReadsBackWhatWasWritten) {
  ASSERT_TRUE(WriteTableFile(*table_, path_, 2).ok());
  const auto read = OpenTableFile(path_, 2).value();
  EXPECT_EQ(read->layout(), layout_);
  EXPECT_EQ(read->info(), table_->info());
  EXPECT_EQ(read->shard(), table_->shard());
  EXPECT_TRUE(std::ranges::equal(read->rows(), table_->rows()));
}

TEST_F(TableReaderTest, AFlippedBitOfARowIsFoundInItsBlock) {
  ASSERT_TRUE(WriteTableFile(*table_, path_, 1).ok());
  std::fstream file(path_, std::ios::in | std::ios::out | std::ios::binary);
  file.seekg(3000000);
  const char byte = static_cast<char>(file.get() ^ 4);
  file.seekp(3000000);
  file.put(byte);
  file.close();
  const absl::Status status = OpenTableFile(path_, 2).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss);
  EXPECT_NE(status.message().find("block 1 of 3"), absl::string_view::npos)
      << status.ToString();
}

TEST_F(TableReaderTest, MissingAndForeignFilesAreRefused) {
  EXPECT_EQ(OpenTableFile(path_ + ".none", 1).status().code(),
            absl::StatusCode::kNotFound);
  std::ofstream(path_) << std::string(10000, 'x');
  EXPECT_EQ(OpenTableFile(path_, 1).status().code(), absl::StatusCode::kDataLoss);
}

}  // namespace
}  // namespace tessera::engram_store
