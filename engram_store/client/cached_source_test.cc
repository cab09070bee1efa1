#include "engram_store/client/cached_source.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "gtest/gtest.h"

#include "common/status.h"
#include "engram_store/client/memory_source.h"
#include "engram_store/table/random_tensors.h"
#include "tests/testing/status_matchers.h"

namespace tessera::engram_store {
namespace {

using ::tessera::testing::IsOk;
using ::tessera::testing::StatusIs;
using Ids = std::vector<uint32_t>;

constexpr size_t kRowBytes = 33;
constexpr std::byte kUntouched{0xAA};

// What the source behind the cache was asked for, and what it answers.
struct Behind {
  std::vector<Ids> issued;
  absl::Status status;  // of every Wait
};

// A resident source that records its requests and fails on command.
class RecordingSource final : public EngramSource {
 public:
  RecordingSource(Behind* behind, std::unique_ptr<EngramSource> source)
      : behind_(behind), source_(std::move(source)) {}

  std::string_view name() const override { return "recording"; }
  std::span<const TableInfo> tables() const override { return source_->tables(); }
  PendingRows Issue(size_t table, std::span<const uint32_t> row_ids,
                    std::span<std::byte> destination) override {
    behind_->issued.emplace_back(row_ids.begin(), row_ids.end());
    return source_->Issue(table, row_ids, destination);
  }
  absl::Status Wait(PendingRows pending, absl::Time deadline) override {
    absl::Status status = source_->Wait(pending, deadline);
    return behind_->status.ok() ? status : behind_->status;
  }
  EngramSourceStats stats() const override { return source_->stats(); }

 private:
  Behind* const behind_;
  const std::unique_ptr<EngramSource> source_;
};

class CachedSourceTest : public ::testing::Test {
 protected:
  CachedSourceTest() { Create({}); }

  void Create(const CachedSourceOptions& options) {
    auto made = CachedSource::Create(options, Recording());
    ASSERT_THAT(made.status(), IsOk());
    source_ = std::move(*made);
  }

  std::unique_ptr<EngramSource> Recording() {
    std::shared_ptr<const EngramTable> table =
        EngramTable::Pack(layout_, tensors_.view(), {}).value();
    return std::make_unique<RecordingSource>(
        &behind_, CreateResidentSource(Clock::Real(), {table}).value());
  }

  absl::Status Fetch(const Ids& ids) {
    out_.assign(ids.size() * kRowBytes, kUntouched);
    return source_->Wait(source_->Issue(0, ids, out_), absl::InfiniteFuture());
  }

  void ExpectRows(const Ids& ids) const {
    for (size_t i = 0; i < ids.size(); ++i) {
      const std::vector<std::byte> row = tensors_.PackedRow(ids[i]);
      EXPECT_TRUE(std::equal(row.begin(), row.end(),
                             out_.begin() + static_cast<ptrdiff_t>(i * kRowBytes)))
          << "row " << ids[i] << " at " << i;
    }
  }

  const TableLayout layout_ = {.layer_id = 1, .column_rows = {53, 59}, .width = 32};
  const RandomTensors tensors_{layout_, 7};
  Behind behind_;
  std::unique_ptr<CachedSource> source_;
  std::vector<std::byte> out_;
};

TEST_F(CachedSourceTest, ARepeatedRowIsFetchedOnce) {
  const Ids ids = {5, 5, 9, 5, 9};
  ASSERT_THAT(Fetch(ids), IsOk());
  ExpectRows(ids);
  EXPECT_EQ(behind_.issued, (std::vector<Ids>{{5, 9}}));
}

TEST_F(CachedSourceTest, OnlyMissingRowsAreFetched) {
  ASSERT_THAT(Fetch({5, 9}), IsOk());
  const Ids ids = {7, 9, 8, 7, 5};
  ASSERT_THAT(Fetch(ids), IsOk());
  ExpectRows(ids);
  EXPECT_EQ(behind_.issued, (std::vector<Ids>{{5, 9}, {7, 8}}));
  EXPECT_EQ(source_->stats().cache_hits, 2u);
  EXPECT_EQ(source_->stats().cache_misses, 4u);
  EXPECT_EQ(source_->stats().cache_evictions, 0u);
}

TEST_F(CachedSourceTest, ARequestOfCachedRowsNeedsNoOtherSide) {
  ASSERT_THAT(Fetch({5, 9}), IsOk());
  behind_.status = UnavailableF("gone");
  const Ids ids = {9, 5};
  ASSERT_THAT(Fetch(ids), IsOk());
  ExpectRows(ids);
}

TEST_F(CachedSourceTest, AFailedFetchIsReportedAndLeavesNothingInTheCache) {
  behind_.status = DataLossF("checksum");
  EXPECT_THAT(Fetch({5}), StatusIs(absl::StatusCode::kDataLoss));
  EXPECT_EQ(out_, std::vector<std::byte>(kRowBytes, kUntouched));
  behind_.status = absl::OkStatus();
  ASSERT_THAT(Fetch({5}), IsOk());
  ExpectRows({5});
  EXPECT_EQ(behind_.issued.size(), 2u);
  EXPECT_EQ(source_->stats().errors, 1u);
}

TEST_F(CachedSourceTest, RequestsInFlightForOneRowBothGetIt) {
  const Ids ids = {5};
  std::vector<std::byte> first(kRowBytes);
  out_.assign(kRowBytes, kUntouched);
  const PendingRows a = source_->Issue(0, ids, first);
  const PendingRows b = source_->Issue(0, ids, out_);
  EXPECT_THAT(source_->Wait(b, absl::InfiniteFuture()), IsOk());
  EXPECT_THAT(source_->Wait(a, absl::InfiniteFuture()), IsOk());
  ExpectRows(ids);
  EXPECT_EQ(first, out_);
}

TEST_F(CachedSourceTest, ASmallCacheEvictsAndStaysRight) {
  Create({.capacity_bytes = 500});
  for (uint32_t start = 0; start < 200; ++start) {
    const Ids ids = {start % 112, (start * 5) % 112, 0};
    ASSERT_THAT(Fetch(ids), IsOk());
    ExpectRows(ids);
  }
  const EngramSourceStats stats = source_->stats();
  EXPECT_GT(stats.cache_evictions, 100u);
  EXPECT_GE(stats.cache_hits, 199u);  // Row 0 at least.
}

TEST_F(CachedSourceTest, BadOptionsAreRefused) {
  EXPECT_THAT(CachedSource::Create({}, nullptr).status(),
              StatusIs(absl::StatusCode::kInvalidArgument));
  EXPECT_THAT(CachedSource::Create({.max_pending = 0}, Recording()).status(),
              StatusIs(absl::StatusCode::kInvalidArgument));
  EXPECT_THAT(CachedSource::Create({.capacity_bytes = 100}, Recording()).status(),
              StatusIs(absl::StatusCode::kInvalidArgument));
}

}  // namespace
}  // namespace tessera::engram_store
