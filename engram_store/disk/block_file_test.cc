#include "engram_store/disk/block_file.h"

#include <algorithm>
#include <fstream>
#include <string>

#include "gtest/gtest.h"
#include <unistd.h>

#include "engram_store/table/row_memory.h"
#include "engram_store/table/table_file_header.h"
#include "tests/testing/status_matchers.h"

namespace tessera::engram_store {
namespace {

using ::tessera::testing::IsOk;
using ::tessera::testing::StatusIs;

class BlockFileTest : public ::testing::Test {
 protected:
  BlockFileTest() : path_(::testing::TempDir() + "/block_file_test.bin") {
    for (size_t i = 0; i < 3 * kFilePageBytes + 100; ++i) {
      content_ += static_cast<char>(i * 7 + i / kFilePageBytes);
    }
    std::ofstream(path_, std::ios::binary) << content_;
  }
  ~BlockFileTest() override { unlink(path_.c_str()); }

  std::string path_;
  std::string content_;
};

TEST_F(BlockFileTest, ReadsPagesAnywhereAndOfTheLastWhatIsThere) {
  const auto file = OpenBlockFile(path_).value();
  EXPECT_EQ(file->size(), content_.size());
  const auto memory = RowMemory::AllocatePrivate(4 * kFilePageBytes).value();
  const std::span<std::byte> pages = memory->mutable_bytes();
  for (const size_t first : {2u, 0u, 3u, 1u}) {
    std::ranges::fill(pages, std::byte{0xAA});
    ASSERT_THAT(file->Read(first * kFilePageBytes, pages.first(2 * kFilePageBytes)),
                IsOk());
    const size_t there =
        std::min<size_t>(2 * kFilePageBytes, content_.size() - first * kFilePageBytes);
    EXPECT_EQ(std::string(reinterpret_cast<const char*>(pages.data()), there),
              content_.substr(first * kFilePageBytes, there));
  }
}

TEST_F(BlockFileTest, AFileThatWasCutIsDataLoss) {
  const auto file = OpenBlockFile(path_).value();
  ASSERT_EQ(truncate(path_.c_str(), kFilePageBytes), 0);
  const auto memory = RowMemory::AllocatePrivate(2 * kFilePageBytes).value();
  EXPECT_THAT(file->Read(0, memory->mutable_bytes()),
              StatusIs(absl::StatusCode::kDataLoss));
  EXPECT_THAT(file->Read(0, memory->mutable_bytes().first(kFilePageBytes)), IsOk());
}

TEST_F(BlockFileTest, OnlyRegularFilesAreOpened) {
  EXPECT_THAT(OpenBlockFile(path_ + ".none").status(),
              StatusIs(absl::StatusCode::kNotFound));
  EXPECT_THAT(OpenBlockFile(::testing::TempDir()).status(),
              StatusIs(absl::StatusCode::kInvalidArgument));
  EXPECT_THAT(OpenBlockFile("/dev/zero").status(),
              StatusIs(absl::StatusCode::kInvalidArgument));
  ASSERT_EQ(truncate(path_.c_str(), 0), 0);
  EXPECT_THAT(OpenBlockFile(path_).status(),
              StatusIs(absl::StatusCode::kInvalidArgument));
}

}  // namespace
}  // namespace tessera::engram_store
