#include "engram_store/disk/table_folder.h"

#include <filesystem>
#include <fstream>
#include <string>

#include "gtest/gtest.h"
#include <unistd.h>

#include "engram_store/table/checkpoint_tables.h"
#include "engram_store/table/row_memory.h"
#include "tests/testing/status_matchers.h"

namespace tessera::engram_store {
namespace {

using ::tessera::testing::IsOk;
using ::tessera::testing::StatusIs;

constexpr char kDemoModel[] = "models/demo";

class TableFolderTest : public ::testing::Test {
 protected:
  TableFolderTest()
      : folder_(::testing::TempDir() + "/table_folder_test/deep"),
        config_(model::LoadModelConfig(kDemoModel).value()),
        checkpoint_(model::Checkpoint::Open(kDemoModel).value()),
        hash_(LoadEngramHash(config_, *checkpoint_, kDemoModel).value()) {
    std::filesystem::remove_all(folder_);
  }
  ~TableFolderTest() override { std::filesystem::remove_all(folder_); }

  absl::StatusOr<OpenedTables> Open(ShardIndex shard = {}) {
    return OpenTableFolder(config_, hash_, *checkpoint_,
                           {.folder = folder_, .shard = shard, .num_threads = 2});
  }

  static void ExpectSameRows(const DiskTable& on_disk, const EngramTable& table) {
    ASSERT_EQ(on_disk.num_local_rows(), table.num_local_rows());
    EXPECT_EQ(on_disk.info(), table.info());
    const size_t row_bytes = on_disk.row_bytes();
    for (uint32_t row = 0; row < table.num_local_rows(); row += 1009) {
      const PageRun run = on_disk.PagesOf(row);
      const auto pages = RowMemory::AllocatePrivate(run.count * kFilePageBytes).value();
      ASSERT_THAT(on_disk.Read(run, pages->mutable_bytes()), IsOk());
      ASSERT_TRUE(std::ranges::equal(on_disk.RowIn(run, pages->bytes(), row),
                                     table.rows().subspan(row * row_bytes, row_bytes)));
    }
  }

  std::string FirstFile() const { return folder_ + "/layer1_shard0_of_1.tsrengt"; }
  static std::filesystem::file_time_type Written(const std::string& path) {
    return std::filesystem::last_write_time(path);
  }

  const std::string folder_;
  model::ModelConfig config_;
  std::unique_ptr<model::Checkpoint> checkpoint_;
  EngramHash hash_;
};

TEST_F(TableFolderTest, EveryShardHasTheRowsAndTheManifestThatItHasInMemory) {
  for (const ShardIndex shard : {ShardIndex{}, ShardIndex{1, 3}}) {
    PackOptions options;
    options.shard = shard;
    const LoadedTables loaded =
        LoadEngramTables(config_, hash_, *checkpoint_, options).value();
    const OpenedTables opened = Open(shard).value();
    EXPECT_EQ(opened.manifest, loaded.manifest);
    ASSERT_EQ(opened.tables.size(), loaded.tables.size());
    for (size_t i = 0; i < opened.tables.size(); ++i) {
      EXPECT_EQ(opened.tables[i]->shard(), shard);
      ExpectSameRows(*opened.tables[i], *loaded.tables[i]);
    }
  }
}

TEST_F(TableFolderTest, AFileIsPackedOnceAndAgainWhenItIsDamaged) {
  ASSERT_THAT(Open().status(), IsOk());
  const auto written = Written(FirstFile());
  ASSERT_THAT(Open().status(), IsOk());
  EXPECT_EQ(Written(FirstFile()), written);
  {
    std::fstream file(FirstFile(), std::ios::in | std::ios::out | std::ios::binary);
    file.seekg(100000);
    const char byte = static_cast<char>(file.get() ^ 4);
    file.seekp(100000);
    file.put(byte);
  }
  const auto tables = Open().value();
  const LoadedTables loaded = LoadEngramTables(config_, hash_, *checkpoint_, {}).value();
  ExpectSameRows(*tables.tables[0], *loaded.tables[0]);
}

TEST_F(TableFolderTest, AFileOfOtherRowsIsNotServed) {
  ASSERT_THAT(Open().status(), IsOk());
  // The table of the other layer has another digest.
  std::filesystem::copy_file(folder_ + "/layer3_shard0_of_1.tsrengt", FirstFile(),
                             std::filesystem::copy_options::overwrite_existing);
  const auto tables = Open().value();
  const LoadedTables loaded = LoadEngramTables(config_, hash_, *checkpoint_, {}).value();
  ExpectSameRows(*tables.tables[0], *loaded.tables[0]);
}

TEST_F(TableFolderTest, AFolderThatCannotBeIsUnavailable) {
  std::filesystem::create_directories(std::filesystem::path(folder_).parent_path());
  std::ofstream(folder_) << "a file";
  EXPECT_THAT(Open().status(), StatusIs(absl::StatusCode::kUnavailable));
}

}  // namespace
}  // namespace tessera::engram_store
