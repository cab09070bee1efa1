#include "coordinator/scheduler/disk_tier.h"

#include <vector>

#include "gtest/gtest.h"

namespace tessera::coordinator {
namespace {

BlockContent ContentOf(uint64_t serial) {
  return {.serial = serial,
          .key = {.low = serial, .high = 1},
          .parent_serial = serial - 1,
          .tenant = "t"};
}

class DiskTierTest : public ::testing::Test {
 protected:
  void Spill(uint64_t serial, BlockId host = 7) {
    const std::vector<int32_t> tokens(2, static_cast<int32_t>(serial));
    tier_.Spill(ContentOf(serial), tokens, 0, host);
    EXPECT_TRUE(tier_.CheckInvariants().ok()) << tier_.CheckInvariants();
  }
  BlockId SlotOf(uint64_t serial) { return tier_.contents().Find(ContentOf(serial).key); }
  // The reads that came, and 1000 more for those that did not.
  std::vector<uint64_t> Report(uint64_t num_done, std::vector<uint64_t> failed = {}) {
    EXPECT_TRUE(tier_.CheckReport(num_done, failed).ok());
    std::vector<uint64_t> fetched;
    tier_.TakeReport(num_done, failed, [&](const SlotCopy& copy, bool came) {
      fetched.push_back(copy.serial + (came ? 0 : 1000));
      EXPECT_EQ(tier_.contents().content(copy.slot).serial, copy.serial);
    });
    EXPECT_TRUE(tier_.CheckInvariants().ok()) << tier_.CheckInvariants();
    return fetched;
  }

  DiskTier tier_{{.num_blocks = 2,
                  .num_tail_blocks = 1,
                  .block_size = 2,
                  .max_copies = 4,
                  .floors = {},
                  .tail_floors = {}}};
};

TEST_F(DiskTierTest, WritesAContentOnceAndHalfOfTheCopiesAreWritesAtMost) {
  Spill(1, 5);
  Spill(1, 6);
  Spill(2);
  Spill(3);  // A third write has no place among the copies.
  const std::vector<SlotCopy> named = tier_.TakeNamed();
  ASSERT_EQ(named.size(), 2u);
  EXPECT_EQ(named[0].host, 5u);
  EXPECT_EQ(named[0].slot, SlotOf(1));
  EXPECT_EQ(SlotOf(3), kNoBlock);
  EXPECT_TRUE(Report(2).empty());
  Spill(3);
  EXPECT_NE(SlotOf(3), kNoBlock);
  EXPECT_EQ(SlotOf(1), kNoBlock) << "the oldest made room";
}

TEST_F(DiskTierTest, WhatIsReadStaysAndIsToldOfInOrder) {
  Spill(1);
  tier_.Fetch(SlotOf(1), false, 3);
  EXPECT_TRUE(tier_.fetching(SlotOf(1), false));
  Spill(2);
  EXPECT_TRUE(Report(1).empty());
  EXPECT_EQ(Report(3), std::vector<uint64_t>{1});
  EXPECT_FALSE(tier_.fetching(SlotOf(1), false));
  EXPECT_EQ(tier_.num_done(), tier_.num_named());
}

TEST_F(DiskTierTest, AFailedWriteOrReadIsForgotten) {
  Spill(1);
  Spill(2);
  // One rank of several may be ahead of the count.
  EXPECT_TRUE(Report(0, {1}).empty());
  EXPECT_TRUE(Report(2).empty());
  EXPECT_NE(SlotOf(1), kNoBlock);
  EXPECT_EQ(SlotOf(2), kNoBlock);
  tier_.Fetch(SlotOf(1), false, 3);
  EXPECT_EQ(Report(3, {2}), std::vector<uint64_t>{1001});
  EXPECT_EQ(SlotOf(1), kNoBlock);
}

TEST_F(DiskTierTest, AWriteThatFailsBeforeItsReadLeavesTheReadToFail) {
  Spill(1);
  tier_.Fetch(SlotOf(1), false, 3);
  EXPECT_TRUE(Report(1, {0}).empty());
  EXPECT_NE(SlotOf(1), kNoBlock);
  EXPECT_EQ(Report(2, {1}), std::vector<uint64_t>{1001});
  EXPECT_EQ(SlotOf(1), kNoBlock);
}

TEST_F(DiskTierTest, RefusesReportsOfCopiesThatAreNotUnderWay) {
  Spill(1);
  EXPECT_FALSE(tier_.CheckReport(2, {}).ok());
  EXPECT_FALSE(tier_.CheckReport(0, std::vector<uint64_t>{1}).ok());
  Report(1);
  EXPECT_FALSE(tier_.CheckReport(0, {}).ok());
  EXPECT_FALSE(tier_.CheckReport(1, std::vector<uint64_t>{0}).ok());
}

TEST_F(DiskTierTest, TailBlocksHaveSlotsOfTheirOwn) {
  tier_.SpillTail(1, 0, 7);
  const BlockId slot = tier_.contents().FindTail(1);
  ASSERT_NE(slot, kNoBlock);
  tier_.Fetch(slot, true, 2);
  tier_.SpillTail(2, 0, 8);
  EXPECT_EQ(tier_.contents().FindTail(2), kNoBlock) << "the only slot is being read";
  tier_.Reset();
  EXPECT_EQ(tier_.contents().FindTail(1), kNoBlock);
  EXPECT_EQ(tier_.num_named(), 0u);
  EXPECT_TRUE(tier_.CheckInvariants().ok());
}

TEST(DiskTier, AFloorIsKeptFromOtherGroups) {
  DiskTier tier({.num_blocks = 2,
                 .num_tail_blocks = 2,
                 .block_size = 2,
                 .max_copies = 32,
                 .floors = {1},
                 .tail_floors = {1}});
  const auto spill = [&](uint64_t serial, uint32_t group) {
    const std::vector<int32_t> tokens(2, static_cast<int32_t>(serial));
    tier.Spill(ContentOf(serial), tokens, group, 7);
    tier.SpillTail(serial, group, 8);
    EXPECT_TRUE(tier.CheckInvariants().ok()) << tier.CheckInvariants();
  };
  const auto holds = [&](uint64_t serial) {
    const bool block = tier.contents().Find(ContentOf(serial).key) != kNoBlock;
    EXPECT_EQ(tier.contents().FindTail(serial) != kNoBlock, block);
    return block;
  };
  constexpr uint32_t kNobody = 0;
  constexpr uint32_t kTenant = 1;
  spill(1, kTenant);
  spill(2, kTenant);
  spill(3, kNobody);
  spill(4, kNobody);
  EXPECT_FALSE(holds(1)) << "above the floor";
  EXPECT_TRUE(holds(2)) << "older than what others spilled, and the floor";
  EXPECT_FALSE(holds(3)) << "the others share what is left";
  EXPECT_TRUE(holds(4));
  spill(5, kTenant);
  EXPECT_FALSE(holds(2)) << "its own may go";
  EXPECT_TRUE(holds(4));
}

}  // namespace
}  // namespace tessera::coordinator
