#include "engram_store/disk/disk_rows.h"

#include <algorithm>
#include <fstream>
#include <random>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include <unistd.h>

#include "engram_store/disk/scripted_file.h"
#include "engram_store/table/table_writer.h"
#include "tests/testing/status_matchers.h"

namespace tessera::engram_store {
namespace {

using ::tessera::testing::IsOk;
using ::tessera::testing::StatusIs;

constexpr uint32_t kSeed = 20264;
const std::byte kUntouched{0xAA};
// 264 bytes a row, 15 or 16 to a page.
const TableLayout kLayout = {.layer_id = 1, .column_rows = {3001, 3011}, .width = 256};

// A fetch with its own destination.
struct Fetched {
  absl::Status status;
  std::vector<std::byte> rows;
};

class DiskRowsTest : public ::testing::Test {
 protected:
  DiskRowsTest() { RecordProperty("seed", static_cast<int>(kSeed)); }

  void Open(uint64_t cache_bytes, int io_threads = 4, size_t max_fetches = 8) {
    std::vector<std::unique_ptr<DiskTable>> tables;
    tables.push_back(file_.Open());
    rows_ = DiskRows::Create({.cache_bytes = cache_bytes,
                              .io_threads = io_threads,
                              .max_fetches = max_fetches},
                             std::move(tables))
                .value();
    file_.script().Forget();
  }

  RowFetch* Start(const std::vector<uint32_t>& ids, Fetched* out, Notification* done) {
    out->rows.assign(ids.size() * kRowBytes, kUntouched);
    return rows_->Start(0, ids, out->rows, [done](RowFetch*) { done->Notify(); });
  }

  Fetched Fetch(const std::vector<uint32_t>& ids) {
    Fetched out;
    Notification done;
    RowFetch* const fetch = Start(ids, &out, &done);
    done.WaitForNotification();
    out.status = rows_->Finish(fetch);
    return out;
  }

  void ExpectRows(const std::vector<uint32_t>& ids, const Fetched& fetched) const {
    ASSERT_THAT(fetched.status, IsOk());
    for (size_t i = 0; i < ids.size(); ++i) {
      const std::vector<std::byte> expected = file_.tensors().PackedRow(ids[i]);
      ASSERT_TRUE(
          std::equal(expected.begin(), expected.end(),
                     fetched.rows.begin() + static_cast<ptrdiff_t>(i * kRowBytes)))
          << "row " << ids[i] << " at " << i;
    }
  }

  std::vector<uint32_t> RandomIds(std::mt19937* random, size_t count) const {
    std::vector<uint32_t> ids(count);
    for (uint32_t& id : ids) {
      id = static_cast<uint32_t>((*random)() % kLayout.num_rows());
    }
    return ids;
  }

  static constexpr size_t kRowBytes = 264;
  ScriptedTable file_{kLayout};
  std::shared_ptr<DiskRows> rows_;
};

TEST_F(DiskRowsTest, RowsAreThoseOfTheTableWithACacheOfAFractionOfIt) {
  Open(30000);  // A fiftieth.
  std::mt19937 random(kSeed);
  for (int repeat = 0; repeat < 50; ++repeat) {
    const std::vector<uint32_t> ids = RandomIds(&random, 1 + random() % 2000);
    ExpectRows(ids, Fetch(ids));
  }
  const DiskRowsStats stats = rows_->stats();
  EXPECT_GT(stats.evictions, 1000u);
  EXPECT_GT(stats.misses, stats.hits);
  EXPECT_EQ(stats.failed_reads, 0u);
}

TEST_F(DiskRowsTest, ItsMemoryIsWhatWasAllowedWhateverTheTable) {
  constexpr uint64_t kCache = 100000;
  constexpr uint64_t kThreads = 2;
  Open(kCache, kThreads);
  // A buffer holds kMaxExtentPages pages; a page's sum has four bytes.
  EXPECT_LE(rows_->num_bytes(), kCache + kThreads * kMaxExtentPages * kFilePageBytes +
                                    file_.script().size() / 1000);
}

TEST_F(DiskRowsTest, ARowIsReadOnceAndThenComesFromMemory) {
  Open(1 << 20);
  const std::vector<uint32_t> ids = {5, 3000, 5, 5999, 5};
  ExpectRows(ids, Fetch(ids));
  EXPECT_EQ(rows_->stats().misses, 3u);
  EXPECT_EQ(file_.script().reads().size(), 3u);
  EXPECT_EQ(rows_->stats().reads, 3u);
  EXPECT_EQ(rows_->TakeReadBytes(), rows_->stats().read_bytes);
  EXPECT_EQ(rows_->TakeReadBytes(), 0u);
  ExpectRows(ids, Fetch(ids));
  EXPECT_EQ(rows_->stats().hits, 3u);
  EXPECT_EQ(file_.script().reads().size(), 3u);
}

TEST_F(DiskRowsTest, ReadsAreSortedAndNeighboursComeTogether) {
  Open(1 << 20, 1);
  Fetch({4000, 17, 2000, 3, 16, 2005});
  const std::vector<FileScript::Read> reads = file_.script().reads();
  ASSERT_EQ(reads.size(), 3u);
  EXPECT_LT(reads[0].offset, reads[1].offset);
  EXPECT_LT(reads[1].offset, reads[2].offset);
  EXPECT_EQ(reads[0].bytes, 2 * kFilePageBytes);
}

TEST_F(DiskRowsTest, AFailedReadIsAnErrorWithANameAndNothingIsKeptOfIt) {
  Open(1 << 20);
  Fetch({1});
  file_.script().FailWith(absl::UnavailableError("the disk is gone"));
  const Fetched failed = Fetch({1, 3000});
  EXPECT_THAT(failed.status, StatusIs(absl::StatusCode::kUnavailable));
  EXPECT_TRUE(std::all_of(failed.rows.begin() + kRowBytes, failed.rows.end(),
                          [](std::byte byte) { return byte == kUntouched; }));
  EXPECT_EQ(rows_->stats().failed_reads, 1u);
  file_.script().FailWith(absl::OkStatus());
  ExpectRows({1, 3000}, Fetch({1, 3000}));
}

TEST_F(DiskRowsTest, APageThatChangedOnDiskIsDataLoss) {
  Open(1 << 20);
  file_.script().FlipByte(file_.script().size() - 10);
  const uint32_t last = 3001 + 3011 - 1;
  EXPECT_THAT(Fetch({last}).status, StatusIs(absl::StatusCode::kDataLoss));
  EXPECT_THAT(Fetch({last}).status, StatusIs(absl::StatusCode::kDataLoss));
  ExpectRows({0}, Fetch({0}));
}

TEST_F(DiskRowsTest, WhatWasReadAheadIsNotReadAgain) {
  Open(1 << 20);
  std::mt19937 random(kSeed);
  const std::vector<uint32_t> ids = RandomIds(&random, 200);
  rows_->Prefetch(0, ids);
  file_.script().AwaitReads(1);
  // Whether the reading ahead is done or under way, no page is read twice.
  ExpectRows(ids, Fetch(ids));
  file_.script().AwaitReads(1);
  const uint64_t reads = rows_->stats().reads;
  ExpectRows(ids, Fetch(ids));
  EXPECT_EQ(rows_->stats().reads, reads);
  EXPECT_GT(rows_->stats().ahead_rows, 150u);
}

TEST_F(DiskRowsTest, WhatIsWaitedForGoesBeforeWhatIsReadAhead) {
  Open(1 << 20, 1);
  file_.script().Pause();
  rows_->Prefetch(0, {{0, 1000, 2000, 3000, 4000}});
  file_.script().AwaitReads(1);  // The only thread stands in the first of five reads.
  Fetched out;
  Notification done;
  RowFetch* const fetch = Start({5000}, &out, &done);
  file_.script().Resume();
  done.WaitForNotification();
  out.status = rows_->Finish(fetch);
  ExpectRows({5000}, out);
  const std::vector<FileScript::Read> reads = file_.script().reads();
  const auto furthest = std::ranges::max_element(reads, {}, &FileScript::Read::offset);
  EXPECT_EQ(furthest - reads.begin(), 1);  // Row 5000 lies behind all the others.
}

TEST_F(DiskRowsTest, ReadingAheadTakesNoMoreThanItsShare) {
  Open(30000);
  std::vector<uint32_t> ids(1000);
  for (uint32_t i = 0; i < 1000; ++i) {
    ids[i] = i;
  }
  rows_->Prefetch(0, ids);
  const DiskRowsStats stats = rows_->stats();
  EXPECT_GT(stats.ahead_rows, 10u);
  EXPECT_LE(stats.ahead_rows, 30000 / kRowBytes / 4);
  EXPECT_EQ(stats.ahead_rows + stats.dropped_ahead, 1000u);
}

TEST_F(DiskRowsTest, AnAbandonedFetchWritesNothingAnyMore) {
  Open(1 << 20, 1);
  file_.script().Pause();
  Fetched out;
  Notification done;
  RowFetch* const fetch = Start({100, 3000}, &out, &done);
  file_.script().AwaitReads(1);
  ASSERT_TRUE(rows_->Abandon(fetch));
  file_.script().Resume();
  ExpectRows({100, 3000}, Fetch({100, 3000}));  // Behind it in the queue.
  EXPECT_FALSE(done.HasBeenNotified());
  EXPECT_TRUE(
      std::ranges::all_of(out.rows, [](std::byte byte) { return byte == kUntouched; }));
}

TEST_F(DiskRowsTest, AFetchThatHasEndedCannotBeAbandoned) {
  Open(1 << 20);
  Fetched out;
  Notification done;
  RowFetch* const fetch = Start({100}, &out, &done);
  done.WaitForNotification();
  EXPECT_FALSE(rows_->Abandon(fetch));
  out.status = rows_->Finish(fetch);
  ExpectRows({100}, out);
}

TEST_F(DiskRowsTest, FetchesInFlightHaveABound) {
  Open(1 << 20, 1, 4);
  file_.script().Pause();
  std::vector<Fetched> outs(5);
  std::vector<Notification> done(5);
  std::vector<RowFetch*> fetches;
  for (uint32_t i = 0; i < 4; ++i) {
    fetches.push_back(Start({i * 1000}, &outs[i], &done[i]));
    ASSERT_NE(fetches.back(), nullptr);
  }
  EXPECT_EQ(Start({5000}, &outs[4], &done[4]), nullptr);
  file_.script().Resume();
  for (uint32_t i = 0; i < 4; ++i) {
    done[i].WaitForNotification();
    outs[i].status = rows_->Finish(fetches[i]);
    ExpectRows({i * 1000}, outs[i]);
  }
  ExpectRows({5000}, Fetch({5000}));
}

TEST_F(DiskRowsTest, ThreadsMayFetchAndReadAheadAtOnce) {
  Open(60000, 4, 32);
  std::vector<std::jthread> threads;
  for (uint32_t t = 0; t < 4; ++t) {
    threads.emplace_back([this, t] {
      std::mt19937 random(kSeed + t);
      for (int repeat = 0; repeat < 20; ++repeat) {
        const std::vector<uint32_t> ids = RandomIds(&random, 100);
        if (repeat % 2 == 0) {
          rows_->Prefetch(0, ids);
        }
        ExpectRows(ids, Fetch(ids));
      }
    });
  }
}

uint64_t ResidentKiB() {
  std::ifstream status("/proc/self/status");
  for (std::string word; status >> word;) {
    if (word == "VmRSS:") {
      uint64_t kib = 0;
      status >> kib;
      return kib;
    }
  }
  return 0;
}

TEST(DiskRowsMemory, AProcessThatReadsEveryRowOfALargeTableStaysSmall) {
  const TableLayout layout = {
      .layer_id = 1, .column_rows = {200003, 200009}, .width = 256};
  const std::string path = ::testing::TempDir() + "/disk_rows_test.tbl";
  {
    const RandomTensors tensors(layout, kSeed);
    ASSERT_THAT(PackTableFile(layout, tensors.view(), {}, std::string(64, 'a'), path, 2),
                IsOk());
  }
  const uint64_t before = ResidentKiB();
  std::vector<std::unique_ptr<DiskTable>> tables;
  tables.push_back(DiskTable::Open(OpenBlockFile(path).value(), 2).value());
  const auto rows =
      DiskRows::Create({.cache_bytes = 1 << 20, .io_threads = 8}, std::move(tables))
          .value();
  std::vector<uint32_t> ids(4096);
  std::vector<std::byte> out(ids.size() * 264);
  for (uint32_t first = 0; first + ids.size() <= layout.num_rows();
       first += static_cast<uint32_t>(ids.size())) {
    for (uint32_t i = 0; i < ids.size(); ++i) {
      ids[i] = first + i;
    }
    Notification done;
    RowFetch* const fetch =
        rows->Start(0, ids, out, [&done](RowFetch*) { done.Notify(); });
    done.WaitForNotification();
    ASSERT_THAT(rows->Finish(fetch), IsOk());
  }
  unlink(path.c_str());
  // 100 MiB of rows went through.
  EXPECT_GT(rows->stats().read_bytes, uint64_t{100} << 20);
  EXPECT_LT(ResidentKiB() - std::min(before, ResidentKiB()), 32u << 10);
}

}  // namespace
}  // namespace tessera::engram_store
