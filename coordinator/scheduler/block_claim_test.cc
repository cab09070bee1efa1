#include "coordinator/scheduler/block_claim.h"

#include <vector>

#include "gtest/gtest.h"

namespace tessera::coordinator {
namespace {

Sequence MakeSequence(int32_t priority, size_t num_blocks) {
  Sequence sequence;
  sequence.spec.priority = priority;
  sequence.blocks.assign(num_blocks, 0);
  return sequence;
}

TEST(BlockClaim, OvertakersHoldHalfOfWhatTheClaimLeavesAtMost) {
  BlockClaim claim;
  Sequence holder = MakeSequence(0, 0);
  Sequence overtaker = MakeSequence(0, 6);
  const Sequence next = MakeSequence(0, 0);
  std::vector<Sequence*> running;
  EXPECT_TRUE(claim.Allows(next, 0, 100, running, 100));
  claim.Take(&holder, 0, 80);
  EXPECT_TRUE(claim.Allows(next, 0, 10, running, 100));
  EXPECT_FALSE(claim.Allows(next, 0, 11, running, 100));
  claim.Admitted(&overtaker, 0);
  running.push_back(&overtaker);
  EXPECT_TRUE(claim.Allows(next, 0, 4, running, 100));
  EXPECT_FALSE(claim.Allows(next, 0, 5, running, 100));
}

TEST(BlockClaim, OtherRanksBetterPrioritiesAndTheHolderItselfAreFree) {
  BlockClaim claim;
  Sequence holder = MakeSequence(0, 0);
  Sequence urgent = MakeSequence(-1, 0);
  const Sequence plain = MakeSequence(0, 0);
  claim.Take(&holder, 0, 100);
  EXPECT_FALSE(claim.Allows(plain, 0, 1, {}, 100));
  EXPECT_TRUE(claim.Allows(plain, 1, 1, {}, 100));
  EXPECT_TRUE(claim.Allows(urgent, 0, 1, {}, 100));
  EXPECT_TRUE(claim.Allows(holder, 0, 100, {}, 100));
}

TEST(BlockClaim, TheFirstKeepsItAndABetterPriorityTakesIt) {
  BlockClaim claim;
  Sequence first = MakeSequence(0, 0);
  Sequence second = MakeSequence(0, 0);
  Sequence urgent = MakeSequence(-1, 0);
  claim.Take(&first, 0, 10);
  claim.Take(&second, 0, 10);
  EXPECT_TRUE(claim.HeldBy(first));
  claim.Take(&urgent, 0, 10);
  EXPECT_TRUE(claim.HeldBy(urgent));
  claim.Drop(first);
  EXPECT_TRUE(claim.active());
  claim.Drop(urgent);
  EXPECT_FALSE(claim.active());
  EXPECT_EQ(claim.num_drops(), 1u);
}

TEST(BlockClaim, WhereRoomIsMadeWorsePrioritiesStayOut) {
  BlockClaim claim;
  Sequence holder = MakeSequence(0, 0);
  const Sequence equal = MakeSequence(0, 0);
  const Sequence worse = MakeSequence(1, 0);
  claim.Take(&holder, 0, 80);
  EXPECT_TRUE(claim.Allows(worse, 1, 10, {}, 100));
  claim.MakeRoom(1);
  EXPECT_FALSE(claim.Allows(worse, 1, 10, {}, 100));
  EXPECT_TRUE(claim.Allows(equal, 1, 10, {}, 100));
  EXPECT_TRUE(claim.Allows(worse, 0, 10, {}, 100));
  claim.Drop(holder);
  claim.Take(&holder, 1, 80);
  EXPECT_TRUE(claim.Allows(worse, 1, 10, {}, 100));
}

TEST(BlockClaim, ThoseWhoRanBeforeCountForNothing) {
  BlockClaim claim;
  Sequence holder = MakeSequence(0, 0);
  const Sequence next = MakeSequence(0, 0);
  Sequence before = MakeSequence(0, 50);
  claim.Admitted(&before, 0);
  claim.Take(&holder, 0, 40);
  std::vector<Sequence*> running = {&before};
  EXPECT_TRUE(claim.Allows(next, 0, 30, running, 100));
}

}  // namespace
}  // namespace tessera::coordinator
