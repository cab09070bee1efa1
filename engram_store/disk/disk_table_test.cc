#include "engram_store/disk/disk_table.h"

#include <algorithm>
#include <vector>

#include "gtest/gtest.h"

#include "engram_store/disk/scripted_file.h"
#include "engram_store/table/row_memory.h"
#include "tests/testing/status_matchers.h"

namespace tessera::engram_store {
namespace {

using ::tessera::testing::IsOk;
using ::tessera::testing::StatusIs;

// About 8,500 rows of 528 bytes in shard 1: two whole blocks and a part.
const TableLayout kLayout = {.layer_id = 14, .column_rows = {9001, 8009}, .width = 512};
constexpr ShardIndex kShard = {.shard = 1, .num_shards = 2};

class DiskTableTest : public ::testing::Test {
 protected:
  std::vector<std::byte> ReadRow(const DiskTable& table, uint32_t row) {
    const PageRun run = table.PagesOf(row);
    const auto memory = RowMemory::AllocatePrivate(run.count * kFilePageBytes).value();
    EXPECT_THAT(table.Read(run, memory->mutable_bytes()), IsOk());
    const auto bytes = table.RowIn(run, memory->bytes(), row);
    return {bytes.begin(), bytes.end()};
  }

  // The first byte of the rows.
  uint64_t RowsBegin(const DiskTable& table) {
    return file_.script().size() - table.num_local_rows() * table.row_bytes();
  }

  ScriptedTable file_{kLayout, 4, kShard};
};

TEST_F(DiskTableTest, SaysWhatTheFileHolds) {
  const auto table = file_.Open();
  EXPECT_EQ(table->layout(), kLayout);
  EXPECT_EQ(table->shard(), kShard);
  EXPECT_EQ(table->info(),
            kLayout.Info(DigestTable(kLayout, file_.tensors().view(), 1).value()));
  EXPECT_EQ(table->num_local_rows(), 4500u + 4004u);
  EXPECT_LE(table->num_bytes(), file_.script().size() / 1000);
}

TEST_F(DiskTableTest, EveryRowIsThatOfTheTensors) {
  const auto table = file_.Open();
  const auto map = ShardMap::Create(kLayout.column_rows, 2).value();
  for (uint32_t global = 0; global < kLayout.num_rows(); global += 7) {
    const ShardedRow place = map.Locate(global);
    if (place.shard == kShard.shard) {
      ASSERT_EQ(ReadRow(*table, place.local_row), file_.tensors().PackedRow(global))
          << global;
    }
  }
  const auto last = static_cast<uint32_t>(table->num_local_rows() - 1);
  EXPECT_EQ(ReadRow(*table, last), file_.tensors().PackedRow(kLayout.num_rows() - 1));
}

TEST_F(DiskTableTest, AFlippedBitOnDiskIsFoundWhenTheFileIsOpened) {
  file_.script().FlipByte(3000000);
  const absl::Status status = DiskTable::Open(file_.File(), 2).status();
  EXPECT_THAT(status, StatusIs(absl::StatusCode::kDataLoss));
  EXPECT_NE(status.message().find("block 1 of 3"), absl::string_view::npos)
      << status.ToString();
}

TEST_F(DiskTableTest, APageThatChangesAfterItWasOpenedIsDataLossAndTheOthersAreNot) {
  const auto table = file_.Open();
  file_.script().FlipByte(RowsBegin(*table) + 5 * kFilePageBytes + 17);
  const auto memory = RowMemory::AllocatePrivate(2 * kFilePageBytes).value();
  EXPECT_THAT(table->Read({.first = 4, .count = 2}, memory->mutable_bytes()),
              StatusIs(absl::StatusCode::kDataLoss));
  EXPECT_THAT(table->Read({.first = 6, .count = 2}, memory->mutable_bytes()), IsOk());
  // The last page is checked as far as it has rows.
  file_.script().FlipByte(file_.script().size() - 1);
  const PageRun last = table->PagesOf(static_cast<uint32_t>(table->num_local_rows() - 1));
  EXPECT_THAT(table->Read({.first = last.end() - 1, .count = 1},
                          memory->mutable_bytes().first(kFilePageBytes)),
              StatusIs(absl::StatusCode::kDataLoss));
}

TEST_F(DiskTableTest, ErrorsOfTheDiskComeThrough) {
  file_.script().FailWith(absl::UnavailableError("no disk"));
  EXPECT_THAT(DiskTable::Open(file_.File(), 1).status(),
              StatusIs(absl::StatusCode::kUnavailable));
}

}  // namespace
}  // namespace tessera::engram_store
