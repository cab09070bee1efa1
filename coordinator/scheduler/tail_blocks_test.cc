#include "coordinator/scheduler/tail_blocks.h"

#include <cstdint>
#include <vector>

#include "gtest/gtest.h"

namespace tessera::coordinator {
namespace {

constexpr BlockId kKvBlock = 5;
constexpr BlockId kOtherKvBlock = 2;

std::vector<BlockId> Take(TailBlocks& tails, int64_t count) {
  std::vector<BlockId> blocks;
  EXPECT_TRUE(tails.Allocate(count, &blocks));
  return blocks;
}

TEST(TailBlocks, ATailStaysWithItsBlockAfterItsRelease) {
  TailBlocks tails(2, 8);
  const std::vector<BlockId> blocks = Take(tails, 2);
  tails.Attach(kKvBlock, blocks[0]);
  tails.Release(blocks);
  EXPECT_EQ(tails.Of(kKvBlock), blocks[0]);
  EXPECT_EQ(tails.Of(kOtherKvBlock), kNoBlock);
  EXPECT_EQ(tails.pool().num_cached(), 1);
  EXPECT_TRUE(tails.CheckInvariants().ok());
}

TEST(TailBlocks, AnEvictedTailIsNotFoundAgain) {
  TailBlocks tails(1, 8);
  const std::vector<BlockId> blocks = Take(tails, 1);
  tails.Attach(kKvBlock, blocks[0]);
  tails.Release(blocks);
  Take(tails, 1);
  EXPECT_EQ(tails.Of(kKvBlock), kNoBlock);
  EXPECT_TRUE(tails.CheckInvariants().ok());
}

TEST(TailBlocks, ABlockThatLeavesTheIndexFreesItsTail) {
  TailBlocks tails(2, 8);
  const std::vector<BlockId> blocks = Take(tails, 2);
  tails.Attach(kKvBlock, blocks[0]);
  tails.Attach(kOtherKvBlock, blocks[1]);
  tails.Release(std::vector<BlockId>{blocks[0]});
  tails.Detach(kKvBlock);
  tails.Detach(kOtherKvBlock);
  EXPECT_EQ(tails.pool().num_cached(), 0);
  EXPECT_EQ(tails.pool().num_used(), 1) << "a running sequence still reads it";
  EXPECT_EQ(tails.Of(kOtherKvBlock), kNoBlock);
  EXPECT_TRUE(tails.CheckInvariants().ok());
}

TEST(TailBlocks, ASecondTailOfTheSameContentIsNotKept) {
  TailBlocks tails(2, 8);
  const std::vector<BlockId> blocks = Take(tails, 2);
  tails.Attach(kKvBlock, blocks[0]);
  tails.Attach(kKvBlock, blocks[1]);
  tails.Release(blocks);
  EXPECT_EQ(tails.Of(kKvBlock), blocks[0]);
  EXPECT_EQ(tails.pool().num_cached(), 1);
  EXPECT_TRUE(tails.CheckInvariants().ok());
}

TEST(TailBlocks, ResetForgetsEverything) {
  TailBlocks tails(2, 8);
  tails.Attach(kKvBlock, Take(tails, 1)[0]);
  tails.Reset();
  EXPECT_EQ(tails.Of(kKvBlock), kNoBlock);
  EXPECT_EQ(tails.pool().num_free(), 2);
  EXPECT_TRUE(tails.CheckInvariants().ok());
}

TEST(TailBlocks, AModelWithoutTailBlocksHasNone) {
  TailBlocks tails(0, 8);
  tails.Detach(kKvBlock);
  EXPECT_EQ(tails.Of(kKvBlock), kNoBlock);
}

}  // namespace
}  // namespace tessera::coordinator
