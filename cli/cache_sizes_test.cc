#include "cli/cache_sizes.h"

#include "gtest/gtest.h"

#include "tests/testing/status_matchers.h"

namespace tessera::cli {
namespace {

using testing::IsOk;
using testing::StatusIs;

constexpr absl::StatusCode kInvalid = absl::StatusCode::kInvalidArgument;

// Blocks of 16 tokens: 100 bytes, and 1000 in the tail.
CacheDemand Demand(int64_t memory_bytes, int64_t tail_tokens) {
  return {.memory_bytes = memory_bytes,
          .block_bytes = 100,
          .tail_block_bytes = tail_tokens > 0 ? 1000 : 0,
          .block_size = 16,
          .tail_tokens = tail_tokens,
          .max_model_len = 160,
          .max_slots = 8};
}

TEST(SizeCaches, WithoutTailsKvBlocksGetAllUpToWhatTheSlotsFill) {
  const auto some = SizeCaches(Demand(5050, 0));
  ASSERT_THAT(some, IsOk());
  EXPECT_EQ(some->num_blocks, 50);
  EXPECT_EQ(some->num_tail_blocks, 0);
  EXPECT_EQ(SizeCaches(Demand(1 << 20, 0))->num_blocks, 80);
}

// A cut model may have layers that see their window alone: its blocks are empty.
TEST(SizeCaches, BlocksWithoutBytesAreAsManyAsTheSlotsFill) {
  CacheDemand demand = Demand(11'000, 31);
  demand.block_bytes = 0;
  const auto sizes = SizeCaches(demand);
  ASSERT_THAT(sizes, IsOk());
  EXPECT_EQ(sizes->num_blocks, 80);
}

TEST(SizeCaches, HalfOfTheMemoryGoesToTails) {
  const auto sizes = SizeCaches(Demand(11'000, 31));
  ASSERT_THAT(sizes, IsOk());
  EXPECT_EQ(sizes->num_tail_blocks, 5);
  EXPECT_EQ(sizes->num_blocks, 60);
}

TEST(SizeCaches, TailsLeaveTheBlocksOfOneSequence) {
  const auto sizes = SizeCaches(Demand(4'100, 31));
  ASSERT_THAT(sizes, IsOk());
  EXPECT_EQ(sizes->num_tail_blocks, 3) << "one sequence needs so many";
  EXPECT_EQ(sizes->num_blocks, 11);
  CacheDemand demand = Demand(1'900, 1);
  demand.tail_block_bytes = 300;
  EXPECT_EQ(SizeCaches(demand)->num_tail_blocks, 3) << "900 beside 10 blocks";
  EXPECT_EQ(SizeCaches(demand)->num_blocks, 10);
}

TEST(SizeCaches, TailsGetWhatFullKvBlocksLeaveUpToOneForEach) {
  const auto some = SizeCaches(Demand(20'000, 31));
  ASSERT_THAT(some, IsOk());
  EXPECT_EQ(some->num_blocks, 80);
  EXPECT_EQ(some->num_tail_blocks, 12);
  const auto all = SizeCaches(Demand(1 << 20, 31));
  ASSERT_THAT(all, IsOk());
  EXPECT_EQ(all->num_blocks, 80);
  EXPECT_EQ(all->num_tail_blocks, 80);
}

TEST(SizeCaches, TheUsersNumbersStand) {
  CacheDemand demand = Demand(11'000, 31);
  demand.num_blocks = 12;
  demand.num_tail_blocks = 20;
  const auto sizes = SizeCaches(demand);
  ASSERT_THAT(sizes, IsOk());
  EXPECT_EQ(sizes->num_blocks, 12);
  EXPECT_EQ(sizes->num_tail_blocks, 20);
  demand.num_tail_blocks.reset();
  EXPECT_EQ(SizeCaches(demand)->num_tail_blocks, 9);
}

TEST(SizeCaches, RefusesWhatCannotServeOneSequence) {
  EXPECT_THAT(SizeCaches(Demand(999, 0)), StatusIs(kInvalid));
  EXPECT_THAT(SizeCaches(Demand(3'999, 31)), StatusIs(kInvalid));
  EXPECT_THAT(SizeCaches(Demand(4'000, 31)), IsOk());
  CacheDemand demand = Demand(1 << 20, 31);
  demand.num_tail_blocks = 2;
  EXPECT_THAT(SizeCaches(demand), StatusIs(kInvalid));
  demand = Demand(1 << 20, 0);
  demand.num_tail_blocks = 1;
  EXPECT_THAT(SizeCaches(demand), StatusIs(kInvalid));
  demand.num_tail_blocks = 0;
  EXPECT_THAT(SizeCaches(demand), IsOk());
}

TEST(HostTierSizes, HalfOfTheMemoryIsTailBlocksWhereThereAreSome) {
  EXPECT_EQ(SizeHostTier({})->num_blocks, 0) << "no tier unless asked for";
  HostDemand demand{.memory_bytes = 10000, .block_bytes = 100};
  EXPECT_EQ(SizeHostTier(demand)->num_blocks, 100);
  EXPECT_EQ(SizeHostTier(demand)->num_tail_blocks, 0);
  demand.tail_block_bytes = 1000;
  EXPECT_EQ(SizeHostTier(demand)->num_blocks, 50);
  EXPECT_EQ(SizeHostTier(demand)->num_tail_blocks, 5);
  demand.memory_bytes = 0;
  demand.num_blocks = 7;
  EXPECT_EQ(SizeHostTier(demand)->num_blocks, 7);
  EXPECT_EQ(SizeHostTier(demand)->num_tail_blocks, 7) << "one for each";
}

TEST(HostTierSizes, WhatCannotFitIsRefused) {
  HostDemand demand{.memory_bytes = 1999, .block_bytes = 100, .tail_block_bytes = 1000};
  EXPECT_EQ(SizeHostTier(demand).status().code(), absl::StatusCode::kInvalidArgument);
  demand = {.memory_bytes = 10000,
            .available_bytes = 20000,
            .num_ranks = 2,
            .block_bytes = 100};
  EXPECT_TRUE(SizeHostTier(demand).ok());
  demand.num_ranks = 3;
  EXPECT_EQ(SizeHostTier(demand).status().code(), absl::StatusCode::kResourceExhausted);
  demand.num_blocks = int64_t{1} << 31;
  demand.block_bytes = int64_t{1} << 40;
  EXPECT_EQ(SizeHostTier(demand).status().code(), absl::StatusCode::kResourceExhausted);
}

}  // namespace
}  // namespace tessera::cli
