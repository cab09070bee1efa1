// The contract of EngramSource (its header is the list of cases), run against every
// implementation.
#include <algorithm>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "gtest/gtest.h"

#include "common/status_macros.h"
#include "engram_store/client/cached_source.h"
#include "engram_store/client/memory_source.h"
#include "engram_store/client/remote_source.h"
#include "engram_store/client/shared_memory_source.h"
#include "engram_store/disk/disk_source.h"
#include "engram_store/service/loopback_shards.h"
#include "tests/testing/status_matchers.h"

namespace tessera::engram_store {
namespace {

using ::tessera::testing::IsOk;
using ::tessera::testing::StatusIs;

constexpr uint32_t kSeed = 20261;
constexpr size_t kMaxPending = 4;
constexpr uint32_t kNumShards = 3;
const std::byte kUntouched{0xAA};
// A cache of a few rows, and fewer threads than a request has rows.
constexpr DiskRowsOptions kDisk = {.cache_bytes = 4000, .io_threads = 2};

// One way to reach the rows of a RandomModel.
struct Variant {
  std::string label;
  std::string name;  // what EngramSource::name() says; of the source behind a cache
  uint32_t num_shards;
  size_t num_replicas;
  uint64_t cache_bytes = 0;  // of a cache in front; 0: none
  bool on_disk = false;      // the shards' rows
};

class EngramSourceTest : public ::testing::TestWithParam<Variant> {
 protected:
  EngramSourceTest() : model_(kSeed) {
    RecordProperty("seed", static_cast<int>(kSeed));
    if (GetParam().num_replicas > 0) {
      shards_ = std::make_unique<LoopbackShards>(
          model_, GetParam().num_shards, GetParam().num_replicas, "token",
          EngramShardOptions{}, GetParam().on_disk ? &kDisk : nullptr);
    }
    source_ = Make(model_.manifest()).value();
  }

  absl::StatusOr<std::unique_ptr<EngramSource>> Make(const EngramManifest& expected) {
    auto source = MakeUncached(expected);
    if (GetParam().cache_bytes == 0 || !source.ok()) {
      return source;
    }
    return CachedSource::Create(
        {.capacity_bytes = GetParam().cache_bytes, .max_pending = kMaxPending},
        *std::move(source));
  }

  absl::StatusOr<std::unique_ptr<EngramSource>> MakeUncached(
      const EngramManifest& expected) {
    if (GetParam().name == "disk") {
      TESSERA_ASSIGN_OR_RETURN(std::shared_ptr<DiskRows> rows, model_.OnDisk({}, kDisk));
      return DiskSource::Create(std::move(rows), kMaxPending);
    }
    if (GetParam().name == "resident") {
      std::vector<std::shared_ptr<const EngramTable>> tables = {model_.Table(0),
                                                                model_.Table(1)};
      MemorySourceOptions options;
      options.max_pending = kMaxPending;
      return MemorySource::Create(options, Clock::Real(), {{tables[0]}, {tables[1]}});
    }
    RemoteSourceOptions options;
    options.endpoints.replicas = shards_->Addresses();
    options.endpoints.auth_token = "token";
    options.endpoints.expected = expected;
    options.max_pending = kMaxPending;
    options.attempt_timeout = absl::Seconds(10);
    if (GetParam().name == "shm") {
      return CreateSharedMemorySource(options.endpoints, kMaxPending, Clock::Real());
    }
    return RemoteSource::Create(options, Clock::Real());
  }

  static absl::Time Soon() { return absl::Now() + absl::Seconds(20); }

  size_t row_bytes(size_t table) const {
    return static_cast<size_t>(source_->tables()[table].row_bytes);
  }

  // Issues and waits; the rows are in out_.
  absl::Status Fetch(size_t table, const std::vector<uint32_t>& ids) {
    out_.assign(ids.size() * row_bytes(table), kUntouched);
    return source_->Wait(source_->Issue(table, ids, out_), Soon());
  }

  void ExpectRows(size_t table, const std::vector<uint32_t>& ids,
                  const std::vector<std::byte>& rows) const {
    const size_t bytes = row_bytes(table);
    for (size_t i = 0; i < ids.size(); ++i) {
      const std::vector<std::byte> expected = model_.tensors(table).PackedRow(ids[i]);
      ASSERT_TRUE(std::equal(expected.begin(), expected.end(),
                             rows.begin() + static_cast<ptrdiff_t>(i * bytes)))
          << "row " << ids[i] << " at " << i << " of table " << table;
    }
  }

  bool Untouched(const std::vector<std::byte>& bytes) const {
    return std::ranges::all_of(bytes, [](std::byte byte) { return byte == kUntouched; });
  }

  RandomModel model_;
  std::unique_ptr<LoopbackShards> shards_;
  std::unique_ptr<EngramSource> source_;
  std::vector<std::byte> out_;
};

TEST_P(EngramSourceTest, SaysWhatItServes) {
  EXPECT_EQ(source_->name(), GetParam().cache_bytes > 0 ? "cached" : GetParam().name);
  ASSERT_EQ(source_->tables().size(), 2u);
  for (size_t i = 0; i < 2; ++i) {
    const ManifestTable& table = model_.manifest().tables[i];
    EXPECT_EQ(source_->tables()[i], table.layout.Info(table.digest));
  }
}

TEST_P(EngramSourceTest, TheFirstAndLastRowOfEveryColumnAreThoseOfTheTable) {
  for (size_t table = 0; table < 2; ++table) {
    std::vector<uint32_t> ids;
    uint32_t offset = 0;
    for (const uint32_t rows : model_.manifest().tables[table].layout.column_rows) {
      ids.push_back(offset);
      ids.push_back(offset + rows - 1);
      offset += rows;
    }
    ASSERT_THAT(Fetch(table, ids), IsOk());
    ExpectRows(table, ids, out_);
  }
}

TEST_P(EngramSourceTest, RandomRowsWithRepeatsLandInRequestOrder) {
  std::mt19937 random(kSeed);
  for (int repeat = 0; repeat < 20; ++repeat) {
    const size_t table = random() % 2;
    std::vector<uint32_t> ids(1 + random() % 6000);
    for (uint32_t& id : ids) {
      id = static_cast<uint32_t>(random() % source_->tables()[table].num_rows);
    }
    ASSERT_THAT(Fetch(table, ids), IsOk());
    ExpectRows(table, ids, out_);
  }
}

TEST_P(EngramSourceTest, AnEmptyRequestIsFulfilled) {
  EXPECT_THAT(Fetch(0, {}), IsOk());
  EXPECT_THAT(Fetch(1, {}), IsOk());
}

TEST_P(EngramSourceTest, RequestsMayOverlapAndBeAwaitedInAnyOrder) {
  const std::vector<uint32_t> first = {0, 5, 239};
  const std::vector<uint32_t> second = {7, 7, 100};
  std::vector<std::byte> first_out(3 * row_bytes(0));
  std::vector<std::byte> second_out(3 * row_bytes(1));
  const PendingRows a = source_->Issue(0, first, first_out);
  const PendingRows b = source_->Issue(1, second, second_out);
  EXPECT_THAT(source_->Wait(b, Soon()), IsOk());
  EXPECT_THAT(source_->Wait(a, Soon()), IsOk());
  ExpectRows(0, first, first_out);
  ExpectRows(1, second, second_out);
}

TEST_P(EngramSourceTest, BadRequestsAreInvalidAndTouchNothing) {
  EXPECT_THAT(Fetch(0, {0, 240}), StatusIs(absl::StatusCode::kInvalidArgument));
  EXPECT_TRUE(Untouched(out_));
  EXPECT_THAT(Fetch(0, {0xFFFFFFFF}), StatusIs(absl::StatusCode::kInvalidArgument));
  EXPECT_TRUE(Untouched(out_));

  const std::vector<uint32_t> ids = {1};
  out_.assign(row_bytes(0) - 1, kUntouched);
  EXPECT_THAT(source_->Wait(source_->Issue(0, ids, out_), Soon()),
              StatusIs(absl::StatusCode::kInvalidArgument));
  out_.resize(row_bytes(0), kUntouched);
  EXPECT_THAT(source_->Wait(source_->Issue(2, ids, out_), Soon()),
              StatusIs(absl::StatusCode::kInvalidArgument));
  EXPECT_TRUE(Untouched(out_));
}

TEST_P(EngramSourceTest, OneRequestTooManyIsRefusedAndTheOthersAreNot) {
  const std::vector<uint32_t> ids = {3};
  std::vector<std::vector<std::byte>> outs(
      kMaxPending + 1, std::vector<std::byte>(row_bytes(0), kUntouched));
  std::vector<PendingRows> pending;
  for (std::vector<std::byte>& out : outs) {
    pending.push_back(source_->Issue(0, ids, out));
  }
  EXPECT_THAT(source_->Wait(pending.back(), Soon()),
              StatusIs(absl::StatusCode::kResourceExhausted));
  EXPECT_TRUE(Untouched(outs.back()));
  for (size_t i = 0; i < kMaxPending; ++i) {
    EXPECT_THAT(source_->Wait(pending[i], Soon()), IsOk());
    ExpectRows(0, ids, outs[i]);
  }
  EXPECT_THAT(Fetch(0, ids), IsOk());
}

TEST_P(EngramSourceTest, CountersAddUp) {
  ASSERT_THAT(Fetch(0, {1, 1, 2}), IsOk());
  EXPECT_FALSE(Fetch(0, {240}).ok());
  const EngramSourceStats stats = source_->stats();
  EXPECT_EQ(stats.lookups, 4u);
  EXPECT_EQ(stats.bytes, 3 * row_bytes(0));
  EXPECT_EQ(stats.errors, 1u);
}

TEST_P(EngramSourceTest, AnotherManifestOrDigestIsRefused) {
  if (GetParam().name == "resident" || GetParam().name == "disk") {
    GTEST_SKIP() << "a source of this process has no other side";
  }
  EngramManifest wrong = model_.manifest();
  wrong.tables[1].digest = std::string(64, '0');
  EXPECT_THAT(Make(wrong).status(), StatusIs(absl::StatusCode::kDataLoss));
  wrong = model_.manifest();
  ++wrong.compressed_vocab_size;
  EXPECT_THAT(Make(wrong).status(), StatusIs(absl::StatusCode::kFailedPrecondition));
}

INSTANTIATE_TEST_SUITE_P(
    Sources, EngramSourceTest,
    ::testing::Values(Variant{"Resident", "resident", 1, 0},
                      Variant{"Disk", "disk", 1, 0},
                      Variant{"RemoteOnDisk", "remote", kNumShards, 2, 0, true},
                      Variant{"SharedMemory", "shm", kNumShards, 1},
                      Variant{"RemoteOneShard", "remote", 1, 1},
                      Variant{"RemoteThreeShardsTwoReplicas", "remote", kNumShards, 2},
                      // Room for every row, and for few.
                      Variant{"CachedRemote", "remote", kNumShards, 2, 1 << 20},
                      Variant{"CachedRemoteThrashing", "remote", kNumShards, 1, 4000},
                      Variant{"CachedResident", "resident", 1, 0, 1 << 20}),
    [](const ::testing::TestParamInfo<Variant>& variant) { return variant.param.label; });

// What only a source with another side can do wrong.
class RemoteFaultTest : public ::testing::Test {
 protected:
  std::unique_ptr<RemoteSource> Connect(std::vector<std::vector<std::string>> replicas,
                                        absl::Duration attempt_timeout) {
    RemoteSourceOptions options;
    options.endpoints.replicas = std::move(replicas);
    options.endpoints.expected = model_.manifest();
    options.endpoints.timeout = absl::Seconds(10);
    options.attempt_timeout = attempt_timeout;
    return RemoteSource::Create(options, Clock::Real()).value();
  }

  RandomModel model_{kSeed};
  const std::vector<uint32_t> ids_ = {0, 100, 239};
  std::vector<std::byte> out_ = std::vector<std::byte>(3 * 33, kUntouched);
};

TEST_F(RemoteFaultTest, ADeadShardWithoutReplicaIsUnavailableBeforeTheDeadline) {
  LoopbackShards shards(model_, 2, 1);
  const auto source = Connect(shards.Addresses(), absl::Seconds(10));
  shards.Stop(0, 0);
  shards.Stop(1, 0);
  const absl::Time start = absl::Now();
  const PendingRows pending = source->Issue(0, ids_, out_);
  EXPECT_THAT(source->Wait(pending, start + absl::Seconds(20)),
              StatusIs(absl::StatusCode::kUnavailable));
  EXPECT_LT(absl::Now() - start, absl::Seconds(10));
  EXPECT_TRUE(std::ranges::all_of(out_, [](std::byte b) { return b == kUntouched; }));
}

TEST_F(RemoteFaultTest, ADeadShardWithAReplicaStillGivesTheRows) {
  LoopbackShards shards(model_, 2, 2);
  const auto source = Connect(shards.Addresses(), absl::Seconds(10));
  shards.Stop(0, 0);
  shards.Stop(1, 1);
  EXPECT_THAT(source->Wait(source->Issue(0, ids_, out_), absl::Now() + absl::Seconds(20)),
              IsOk());
  for (size_t i = 0; i < ids_.size(); ++i) {
    const std::vector<std::byte> row = model_.tensors(0).PackedRow(ids_[i]);
    EXPECT_TRUE(std::equal(row.begin(), row.end(),
                           out_.begin() + static_cast<ptrdiff_t>(i * 33)));
  }
}

TEST_F(RemoteFaultTest, ADeadlineInThePastFailsAndLateRowsAreDropped) {
  LoopbackShards shards(model_, 2, 1);
  const auto source = Connect(shards.Addresses(), absl::Seconds(10));
  int failed = 0;
  for (int repeat = 0; repeat < 200; ++repeat) {
    std::fill(out_.begin(), out_.end(), kUntouched);
    const absl::Status status =
        source->Wait(source->Issue(0, ids_, out_), absl::InfinitePast());
    if (status.ok()) {
      continue;  // The rows were faster.
    }
    ++failed;
    EXPECT_THAT(status, StatusIs(absl::StatusCode::kDeadlineExceeded));
    // From here on the buffer is ours: what it holds now it must hold after another
    // request ended.
    const std::vector<std::byte> mark(out_.size(), std::byte{0x55});
    out_ = mark;
    std::vector<std::byte> other(out_.size());
    EXPECT_THAT(
        source->Wait(source->Issue(0, ids_, other), absl::Now() + absl::Seconds(20)),
        IsOk());
    EXPECT_EQ(out_, mark);
  }
  EXPECT_GT(failed, 0);
}

}  // namespace
}  // namespace tessera::engram_store
