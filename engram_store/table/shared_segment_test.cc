#include "engram_store/table/shared_segment.h"

#include <algorithm>

#include "gtest/gtest.h"
#include <unistd.h>

#include "engram_store/table/random_tensors.h"

namespace tessera::engram_store {
namespace {

const TableLayout& Layout() {
  static const auto* const layout =
      new TableLayout{.layer_id = 1, .column_rows = {53, 59}, .width = 32};
  return *layout;
}

std::unique_ptr<EngramTable> Table(bool shared) {
  PackOptions options;
  options.shard = {.shard = 1, .num_shards = 2};
  options.shared_memory = shared;
  options.prefix_bytes = shared ? kSegmentHeaderBytes : 0;
  return EngramTable::Pack(Layout(), RandomTensors(Layout(), 5).view(), options).value();
}

class SharedSegmentTest : public ::testing::TestWithParam<bool> {};

TEST_P(SharedSegmentTest, AClientMapsTheRowsOfTheShard) {
  const SegmentNonce nonce = RandomSegmentNonce().value();
  const auto plain = Table(false);
  const auto owner = ShareTable(Table(GetParam()), nonce).value();
  const SharedSegment segment = {.process = getpid(),
                                 .file = owner->memory()->file(),
                                 .nonce = nonce,
                                 .shard = owner->shard()};
  const auto mapped = MapSharedTable(segment, Layout(), owner->info().digest).value();
  EXPECT_NE(mapped->rows().data(), owner->rows().data());
  EXPECT_TRUE(std::ranges::equal(mapped->rows(), plain->rows()));
}

INSTANTIATE_TEST_SUITE_P(InPlaceAndCopied, SharedSegmentTest, ::testing::Bool());

TEST(SharedSegment, WhateverDiffersFromTheDescriptionIsRefused) {
  const SegmentNonce nonce = RandomSegmentNonce().value();
  const auto owner = ShareTable(Table(true), nonce).value();
  const SharedSegment good = {.process = getpid(),
                              .file = owner->memory()->file(),
                              .nonce = nonce,
                              .shard = owner->shard()};
  const std::string digest = owner->info().digest;
  const auto code = [&](const SharedSegment& segment, const TableLayout& layout,
                        const std::string& wanted) {
    return MapSharedTable(segment, layout, wanted).status().code();
  };
  EXPECT_EQ(code(good, Layout(), digest), absl::StatusCode::kOk);

  SharedSegment other = good;
  other.nonce[0] ^= 1;
  EXPECT_EQ(code(other, Layout(), digest), absl::StatusCode::kDataLoss);
  other = good;
  other.shard.shard = 0;
  EXPECT_NE(code(other, Layout(), digest), absl::StatusCode::kOk);
  other = good;
  other.file = 1 << 20;
  EXPECT_EQ(code(other, Layout(), digest), absl::StatusCode::kUnavailable);
  TableLayout layout = Layout();
  layout.layer_id = 2;
  EXPECT_EQ(code(good, layout, digest), absl::StatusCode::kDataLoss);
  EXPECT_EQ(code(good, Layout(), std::string(64, 'a')), absl::StatusCode::kDataLoss);
}

}  // namespace
}  // namespace tessera::engram_store
