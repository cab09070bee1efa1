#include "engram_store/service/engram_shard.h"

#include <algorithm>

#include "gtest/gtest.h"

#include "engram_store/disk/scripted_file.h"
#include "engram_store/table/random_tensors.h"

namespace tessera::engram_store {
namespace {

constexpr ShardIndex kShard = {.shard = 1, .num_shards = 2};

class EngramShardTest : public ::testing::Test {
 protected:
  EngramShardTest()
      : layout_{.layer_id = 1, .column_rows = {53, 59}, .width = 32},
        tensors_(layout_, 3) {
    manifest_.contract = "v41";
    manifest_.tables.push_back(
        {.layout = layout_,
         .multipliers = {1},
         .digest = DigestTable(layout_, tensors_.view(), 1).value()});
  }

  std::vector<std::unique_ptr<EngramTable>> Tables() const {
    PackOptions options;
    options.shard = kShard;
    std::vector<std::unique_ptr<EngramTable>> tables;
    tables.push_back(EngramTable::Pack(layout_, tensors_.view(), options).value());
    return tables;
  }

  TableLayout layout_;
  RandomTensors tensors_;
  EngramManifest manifest_;
};

TEST_F(EngramShardTest, GivesTheRowsOfItsRanges) {
  const auto shard =
      EngramShard::Create({.max_rows_per_request = 10}, manifest_, Tables()).value();
  const ShardMap map = ShardMap::Create(layout_.column_rows, 2).value();
  const RowRange range = map.Range(1, 1);
  std::string rows;
  ASSERT_TRUE(shard
                  ->Lookup(shard->shard_id(), 0,
                           std::vector<uint32_t>{range.local_base, range.local_base + 1},
                           &rows)
                  .ok());
  std::vector<std::byte> expected = tensors_.PackedRow(range.first_row);
  const std::vector<std::byte> next = tensors_.PackedRow(range.first_row + 1);
  expected.insert(expected.end(), next.begin(), next.end());
  EXPECT_TRUE(std::ranges::equal(std::as_bytes(std::span(rows)), expected));
  EXPECT_EQ(shard->stats().rows, 2u);
}

TEST_F(EngramShardTest, RefusesBadLookupsAndAddsNothing) {
  const auto shard =
      EngramShard::Create({.max_rows_per_request = 10}, manifest_, Tables()).value();
  const std::string id = shard->shard_id();
  std::string rows = "x";
  EXPECT_EQ(shard->Lookup("other", 0, std::vector<uint32_t>{0}, &rows).code(),
            absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(shard->Lookup(id, 1, std::vector<uint32_t>{0}, &rows).code(),
            absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(shard->Lookup(id, 0, std::vector<uint32_t>{0xFFFFFFFF}, &rows).code(),
            absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(shard->Lookup(id, 0, std::vector<uint32_t>(11), &rows).code(),
            absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(rows, "x");
  EXPECT_EQ(shard->stats().errors, 4u);
}

TEST_F(EngramShardTest, WithRowsOnDiskItGivesTheSameAndNamesWhatTheDiskDoes) {
  ScriptedTable file(layout_, 3, kShard);
  std::vector<std::unique_ptr<DiskTable>> tables;
  tables.push_back(file.Open());
  auto rows =
      DiskRows::Create({.cache_bytes = 1 << 20, .io_threads = 2, .max_fetches = 4},
                       std::move(tables))
          .value();
  const auto on_disk =
      EngramShard::CreateOnDisk({.max_rows_per_request = 10}, manifest_, rows).value();
  const auto in_memory =
      EngramShard::Create({.max_rows_per_request = 10}, manifest_, Tables()).value();
  EXPECT_EQ(on_disk->shard_id(), in_memory->shard_id());
  EXPECT_EQ(on_disk->max_response_bytes(), in_memory->max_response_bytes());
  EXPECT_TRUE(on_disk->segments().empty());
  const std::string id = on_disk->shard_id();
  std::string expected = "x";
  std::string found = "x";
  for (int repeat = 0; repeat < 2; ++repeat) {
    ASSERT_TRUE(in_memory->Lookup(id, 0, {{3, 0, 3}}, &expected).ok());
    ASSERT_TRUE(on_disk->Lookup(id, 0, {{3, 0, 3}}, &found).ok());
  }
  EXPECT_EQ(found, expected);
  EXPECT_EQ(on_disk->stats().rows, 6u);
  EXPECT_EQ(on_disk->stats().bytes, in_memory->stats().bytes);
  EXPECT_EQ(on_disk->disk()->stats().hits, 2u);
  EXPECT_EQ(on_disk->Lookup(id, 0, {{0xFFFFFFFF}}, &found).code(),
            absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(on_disk->Lookup(id, 1, {{0}}, &found).code(),
            absl::StatusCode::kInvalidArgument);
  file.script().FailWith(absl::UnavailableError("no disk"));
  EXPECT_EQ(on_disk->Lookup(id, 0, {{3, 9}}, &found).code(),
            absl::StatusCode::kUnavailable);
  EXPECT_EQ(found, expected);
  EXPECT_EQ(on_disk->stats().errors, 3u);
}

TEST_F(EngramShardTest, LookupsBeyondWhatMayBeInFlightAreRefusedWithoutWaiting) {
  ScriptedTable file(layout_, 3, kShard);
  std::vector<std::unique_ptr<DiskTable>> tables;
  tables.push_back(file.Open());
  auto rows =
      DiskRows::Create({.cache_bytes = 1 << 20, .io_threads = 1, .max_fetches = 4},
                       std::move(tables))
          .value();
  const auto shard = EngramShard::CreateOnDisk({}, manifest_, rows).value();
  file.script().Pause();
  std::vector<std::string> found(5);
  std::vector<Notification> done(4);
  for (uint32_t i = 0; i < 4; ++i) {
    shard->StartLookup(shard->shard_id(), 0, {{i}}, &found[i],
                       [&done, i](const absl::Status& status) {
                         EXPECT_TRUE(status.ok());
                         done[i].Notify();
                       });
  }
  EXPECT_EQ(shard->Lookup(shard->shard_id(), 0, {{9}}, &found[4]).code(),
            absl::StatusCode::kResourceExhausted);
  file.script().Resume();
  for (Notification& each : done) {
    each.WaitForNotification();
  }
}

TEST_F(EngramShardTest, RefusesTablesOfAnotherManifest) {
  EngramManifest other = manifest_;
  other.tables[0].digest = std::string(64, '0');
  EXPECT_EQ(EngramShard::Create({}, other, Tables()).status().code(),
            absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(EngramShard::Create({}, manifest_, {}).status().code(),
            absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace tessera::engram_store
