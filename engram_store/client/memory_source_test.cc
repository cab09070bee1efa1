#include "engram_store/client/memory_source.h"

#include <vector>

#include "gtest/gtest.h"

#include "engram_store/table/random_tensors.h"

namespace tessera::engram_store {
namespace {

constexpr size_t kRowBytes = 33;

std::shared_ptr<const EngramTable> Table(uint32_t shard, uint32_t num_shards,
                                         uint32_t seed) {
  const TableLayout layout = {.layer_id = 1, .column_rows = {53, 59}, .width = 32};
  PackOptions options;
  options.shard = {.shard = shard, .num_shards = num_shards};
  return EngramTable::Pack(layout, RandomTensors(layout, seed).view(), options).value();
}

absl::StatusCode CreateCode(std::vector<std::shared_ptr<const EngramTable>> shards,
                            size_t max_pending = 4) {
  MemorySourceOptions options;
  options.max_pending = max_pending;
  return MemorySource::Create(options, Clock::Real(), {std::move(shards)})
      .status()
      .code();
}

TEST(MemorySource, RefusesIncompleteOrMixedShards) {
  EXPECT_EQ(CreateCode({Table(0, 2, 5), Table(1, 2, 5)}), absl::StatusCode::kOk);
  EXPECT_EQ(CreateCode({}), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(CreateCode({Table(0, 2, 5)}), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(CreateCode({Table(1, 2, 5), Table(0, 2, 5)}),
            absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(CreateCode({Table(0, 2, 5), Table(1, 2, 6)}),
            absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(CreateCode({Table(0, 1, 5)}, 0), absl::StatusCode::kInvalidArgument);
}

TEST(MemorySource, WhatIssueDidNotCopyWaitCopiesUntilTheDeadline) {
  SimulatedClock clock;
  MemorySourceOptions options;
  options.max_inline_rows = 10;
  auto source = MemorySource::Create(options, &clock, {{Table(0, 1, 5)}}).value();
  const std::vector<uint32_t> ids(25, 3);
  std::vector<std::byte> first(ids.size() * kRowBytes);
  std::vector<std::byte> second(first.size(), std::byte{0xAA});

  const PendingRows late = source->Issue(0, ids, second);
  EXPECT_EQ(second[10 * kRowBytes], std::byte{0xAA});
  EXPECT_EQ(source->Wait(late, clock.Now()).code(), absl::StatusCode::kDeadlineExceeded);
  EXPECT_EQ(second[10 * kRowBytes], std::byte{0xAA});

  EXPECT_TRUE(source->Wait(source->Issue(0, ids, first), absl::InfiniteFuture()).ok());
  EXPECT_TRUE(std::equal(first.begin(), first.begin() + kRowBytes,
                         first.end() - static_cast<ptrdiff_t>(kRowBytes)));
  EXPECT_EQ(source->stats().late_waits, 2u);
  EXPECT_EQ(source->stats().errors, 1u);
  EXPECT_EQ(source->stats().lookups, 50u);
  EXPECT_EQ(source->stats().bytes, first.size());
}

TEST(MemorySource, RowsThatADeviceReadsAreCountedToo) {
  auto source =
      CreateResidentSource(Clock::Real(), {Table(0, 1, 5), Table(0, 1, 5)}).value();
  const std::vector<uint32_t> ids = {1, 2};
  std::vector<std::byte> out(ids.size() * kRowBytes);
  EXPECT_TRUE(source->Wait(source->Issue(0, ids, out), absl::InfiniteFuture()).ok());
  source->CountDeviceReads(1, 5);
  EXPECT_EQ(source->stats().lookups, 7u);
  EXPECT_EQ(source->stats().bytes, 7 * kRowBytes);
  EXPECT_EQ(source->stats().late_waits, 0u);
}

TEST(MemorySource, ATicketIsSpentByItsWait) {
  auto source = CreateResidentSource(Clock::Real(), {Table(0, 1, 5)}).value();
  const std::vector<uint32_t> ids = {1};
  std::vector<std::byte> out(kRowBytes);
  const PendingRows pending = source->Issue(0, ids, out);
  EXPECT_TRUE(source->Wait(pending, absl::InfiniteFuture()).ok());
  EXPECT_EQ(source->Wait(pending, absl::InfiniteFuture()).code(),
            absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace tessera::engram_store
