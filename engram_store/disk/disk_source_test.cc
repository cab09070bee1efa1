#include "engram_store/disk/disk_source.h"

#include <algorithm>
#include <vector>

#include "gtest/gtest.h"

#include "engram_store/disk/scripted_file.h"
#include "tests/testing/status_matchers.h"

namespace tessera::engram_store {
namespace {

using ::tessera::testing::IsOk;
using ::tessera::testing::StatusIs;

const TableLayout kLayout = {.layer_id = 1, .column_rows = {1009, 1013}, .width = 256};
const std::byte kUntouched{0xAA};

std::shared_ptr<DiskRows> Rows(ScriptedTable* file) {
  std::vector<std::unique_ptr<DiskTable>> tables;
  tables.push_back(file->Open());
  return DiskRows::Create({.cache_bytes = 1 << 20, .io_threads = 2}, std::move(tables))
      .value();
}

TEST(DiskSource, WantsWholeTables) {
  ScriptedTable file(kLayout, 7, {.shard = 0, .num_shards = 2});
  EXPECT_THAT(DiskSource::Create(Rows(&file), 4).status(),
              StatusIs(absl::StatusCode::kInvalidArgument));
}

TEST(DiskSource, ADeadlineEndsAWaitAndTheDestinationIsTheCallersAgain) {
  ScriptedTable file(kLayout);
  const auto source = DiskSource::Create(Rows(&file), 4).value();
  const std::vector<uint32_t> ids = {7, 1500};
  std::vector<std::byte> out(ids.size() * 264, kUntouched);
  file.script().Pause();
  const PendingRows pending = source->Issue(0, ids, out);
  EXPECT_THAT(source->Wait(pending, absl::Now() + absl::Milliseconds(5)),
              StatusIs(absl::StatusCode::kDeadlineExceeded));
  file.script().Resume();
  std::vector<std::byte> again(out.size());
  ASSERT_THAT(source->Wait(source->Issue(0, ids, again), absl::InfiniteFuture()), IsOk());
  EXPECT_TRUE(
      std::ranges::all_of(out, [](std::byte byte) { return byte == kUntouched; }));
  EXPECT_EQ(source->stats().errors, 1u);
}

TEST(DiskSource, CountsWhatTheCacheHadAndWhatWasRead) {
  ScriptedTable file(kLayout);
  const auto source = DiskSource::Create(Rows(&file), 4).value();
  const std::vector<uint32_t> ids = {7, 7, 1500};
  std::vector<std::byte> out(ids.size() * 264);
  for (int repeat = 0; repeat < 2; ++repeat) {
    ASSERT_THAT(source->Wait(source->Issue(0, ids, out), absl::InfiniteFuture()), IsOk());
  }
  EXPECT_EQ(source->stats().cache_misses, 2u);
  EXPECT_EQ(source->stats().cache_hits, 2u);
  EXPECT_EQ(source->stats().disk_bytes, 2 * kFilePageBytes);
}

TEST(DiskSource, RowsThatWereAnnouncedAreThereWhenTheyAreAskedFor) {
  ScriptedTable file(kLayout);
  auto rows = Rows(&file);
  const auto source = DiskSource::Create(rows, 4).value();
  const std::vector<uint32_t> ids = {7, 1500, 900};
  source->Prefetch(0, ids);
  source->Prefetch(9, ids);         // No such table: ignored.
  source->Prefetch(0, {{999999}});  // Nor row.
  std::vector<std::byte> out(ids.size() * 264);
  ASSERT_THAT(source->Wait(source->Issue(0, ids, out), absl::InfiniteFuture()), IsOk());
  for (size_t i = 0; i < ids.size(); ++i) {
    const std::vector<std::byte> row = file.tensors().PackedRow(ids[i]);
    EXPECT_TRUE(std::equal(row.begin(), row.end(),
                           out.begin() + static_cast<ptrdiff_t>(i * 264)));
  }
  EXPECT_LE(rows->stats().reads, 6u);
}

TEST(DiskSource, MayGoWithRequestsInFlight) {
  ScriptedTable file(kLayout);
  auto rows = Rows(&file);
  std::vector<std::byte> out(2 * 264, kUntouched);
  const std::vector<uint32_t> ids = {7, 1500};
  {
    const auto source = DiskSource::Create(rows, 4).value();
    file.script().Pause();
    source->Issue(0, ids, out);
  }
  const std::vector<std::byte> mark = out;
  file.script().Resume();
  rows.reset();
  EXPECT_EQ(out, mark);
}

}  // namespace
}  // namespace tessera::engram_store
