#include "coordinator/scheduler/host_tier.h"

#include <vector>

#include "gtest/gtest.h"

namespace tessera::coordinator {
namespace {

constexpr int64_t kBlockSize = 2;

BlockContent ContentOf(uint64_t serial) {
  return {.serial = serial,
          .key = {.low = serial, .high = 1},
          .parent_serial = serial - 1,
          .tenant = "t"};
}

// Keeps contents, whose tokens are their serial.
std::vector<BlockId> Keep(HostTier& tier, std::vector<uint64_t> serials) {
  std::vector<BlockId> blocks;
  for (const uint64_t serial : serials) {
    const std::vector<int32_t> tokens(kBlockSize, static_cast<int32_t>(serial));
    blocks.push_back(tier.Keep(ContentOf(serial), tokens));
  }
  EXPECT_TRUE(tier.CheckInvariants().ok()) << tier.CheckInvariants();
  return blocks;
}

bool Holds(const HostTier& tier, uint64_t serial) {
  const BlockId block = tier.Find(ContentOf(serial).key);
  return block != kNoBlock && tier.content(block).serial == serial &&
         tier.tokens(block)[1] == static_cast<int32_t>(serial);
}

TEST(HostTier, KeepsAContentOnceAndFindsIt) {
  HostTier tier(3, 0, kBlockSize);
  EXPECT_FALSE(Holds(tier, 1));
  EXPECT_NE(Keep(tier, {1}).front(), kNoBlock);
  EXPECT_TRUE(Holds(tier, 1));
  EXPECT_EQ(Keep(tier, {1}).front(), kNoBlock) << "no second copy";
  EXPECT_EQ(tier.blocks().num_cached(), 1);
}

TEST(HostTier, TheLeastRecentlyKeptGivesUpItsPlace) {
  HostTier tier(3, 0, kBlockSize);
  const std::vector<BlockId> blocks = Keep(tier, {1, 2, 3});
  Keep(tier, {1});  // newest again
  EXPECT_EQ(Keep(tier, {4}).front(), blocks[1]);
  EXPECT_TRUE(Holds(tier, 1));
  EXPECT_FALSE(Holds(tier, 2));
  EXPECT_TRUE(Holds(tier, 3));
}

TEST(HostTier, WhatAPlanReadsStaysUntilThePlanAfterIt) {
  HostTier tier(2, 1, kBlockSize);
  const std::vector<BlockId> blocks = Keep(tier, {1, 2});
  const BlockId tail = tier.KeepTail(1);
  tier.Pin(blocks[0]);
  tier.PinTail(tail);
  EXPECT_EQ(Keep(tier, {3}).front(), blocks[1]);
  tier.Pin(blocks[1]);
  EXPECT_EQ(Keep(tier, {4}).front(), kNoBlock) << "no place";
  EXPECT_EQ(tier.KeepTail(3), kNoBlock);
  tier.BeginPlan();
  EXPECT_EQ(Keep(tier, {4}).front(), kNoBlock) << "no plan has read them";
  tier.Unpin(blocks[0]);
  tier.Unpin(blocks[1]);
  tier.UnpinTail(tail);
  EXPECT_EQ(Keep(tier, {4}).front(), kNoBlock) << "this plan does";
  tier.BeginPlan();
  EXPECT_TRUE(Holds(tier, 1));
  EXPECT_NE(Keep(tier, {4}).front(), kNoBlock);
  EXPECT_EQ(tier.KeepTail(3), tail);
  EXPECT_EQ(tier.FindTail(1), kNoBlock);
  EXPECT_EQ(tier.FindTail(3), tail);
}

TEST(HostTier, AFloorIsKeptFromOtherGroups) {
  const std::vector<int64_t> floors = {1};
  HostTier tier(2, 2, kBlockSize, floors, floors);
  const auto keep = [&](uint64_t serial, uint32_t group) {
    const std::vector<int32_t> tokens(kBlockSize, static_cast<int32_t>(serial));
    return tier.Keep(ContentOf(serial), tokens, group);
  };
  keep(1, 1);
  keep(2, 1);
  tier.KeepTail(1, 1);
  tier.KeepTail(2, 1);
  EXPECT_NE(keep(3, 0), kNoBlock);
  EXPECT_NE(keep(4, 0), kNoBlock);
  EXPECT_NE(tier.KeepTail(3), kNoBlock);
  EXPECT_NE(tier.KeepTail(4), kNoBlock);
  EXPECT_FALSE(Holds(tier, 1));
  EXPECT_TRUE(Holds(tier, 2)) << "the least recently used, and the floor";
  EXPECT_NE(tier.FindTail(2), kNoBlock);
  EXPECT_NE(keep(5, 1), kNoBlock);
  EXPECT_FALSE(Holds(tier, 2)) << "its own may go";
}

TEST(HostTier, ANewContentUnderTheSameKeyTakesItsPlace) {
  HostTier tier(2, 0, kBlockSize);
  Keep(tier, {1});
  BlockContent other = ContentOf(1);
  other.serial = 7;
  EXPECT_NE(tier.Keep(other, std::vector<int32_t>{7, 7}), kNoBlock);
  EXPECT_EQ(tier.content(tier.Find(other.key)).serial, 7u);
  EXPECT_EQ(tier.blocks().num_cached(), 1);
  EXPECT_TRUE(tier.CheckInvariants().ok());
}

TEST(HostTier, ATierWithoutBlocksKeepsNothing) {
  HostTier tier(0, 0, kBlockSize);
  EXPECT_EQ(Keep(tier, {1}).front(), kNoBlock);
  EXPECT_EQ(tier.KeepTail(1), kNoBlock);
  EXPECT_FALSE(Holds(tier, 1));
}

TEST(HostTier, AResetForgetsEverything) {
  HostTier tier(2, 2, kBlockSize);
  tier.Pin(Keep(tier, {1}).front());
  tier.KeepTail(1);
  tier.Reset();
  EXPECT_FALSE(Holds(tier, 1));
  EXPECT_EQ(tier.FindTail(1), kNoBlock);
  EXPECT_EQ(tier.blocks().num_free(), 2);
  EXPECT_TRUE(tier.CheckInvariants().ok());
}

}  // namespace
}  // namespace tessera::coordinator
