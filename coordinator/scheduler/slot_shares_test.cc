#include "coordinator/scheduler/slot_shares.h"

#include <vector>

#include "gtest/gtest.h"

namespace tessera::coordinator {
namespace {

TenantAccount MakeTenant(double weight, int64_t num_running) {
  TenantAccount tenant;
  tenant.policy.weight = weight;
  tenant.num_running = num_running;
  return tenant;
}

Sequence MakeSequence(TenantAccount* tenant, uint64_t order, int32_t priority = 0) {
  Sequence sequence;
  sequence.tenant = tenant;
  sequence.order = order;
  sequence.spec.priority = priority;
  return sequence;
}

TEST(SlotShares, PartsFollowTheWeights) {
  const SlotShares shares(8, 4);
  EXPECT_TRUE(shares.Lacks(MakeTenant(1, 1)));
  EXPECT_FALSE(shares.Lacks(MakeTenant(1, 2)));
  EXPECT_TRUE(shares.Lacks(MakeTenant(3, 5)));
  EXPECT_FALSE(shares.Lacks(MakeTenant(3, 6)));
  EXPECT_TRUE(shares.Exceeds(MakeTenant(3, 7)));
  EXPECT_FALSE(shares.Exceeds(MakeTenant(3, 6)));
}

TEST(SlotShares, AMoveTurnsNoRolesRound) {
  // Whoever was found to lack and to exceed, is not after the move.
  for (double weight : {1.0, 1.5, 2.0, 7.0}) {
    for (int64_t num_slots = 1; num_slots <= 16; ++num_slots) {
      for (int64_t held = 0; held <= num_slots; ++held) {
        const SlotShares shares(num_slots, 1 + weight);
        const TenantAccount one = MakeTenant(1, held);
        const TenantAccount other = MakeTenant(weight, num_slots - held);
        if (shares.Lacks(one) && shares.Exceeds(other)) {
          EXPECT_FALSE(shares.Lacks(MakeTenant(weight, num_slots - held - 1)));
          EXPECT_FALSE(shares.Exceeds(MakeTenant(1, held + 1)));
        }
      }
    }
  }
}

TEST(SlotShares, MoreTenantsThanSlotsMoveNobody) {
  const SlotShares shares(2, 3);
  EXPECT_FALSE(shares.Lacks(MakeTenant(1, 0)));
}

TEST(SlotShares, TheLastOfTheTenantThatHoldsMostMoves) {
  TenantAccount most = MakeTenant(2, 12);
  TenantAccount much = MakeTenant(1, 5);
  std::vector<Sequence> sequences = {MakeSequence(&most, 1), MakeSequence(&most, 2),
                                     MakeSequence(&much, 3)};
  const std::vector<Sequence*> running = {&sequences[1], &sequences[0], &sequences[2]};
  const SlotShares shares(16, 4);
  EXPECT_EQ(shares.FindToMove(running, 0), &sequences[1]);
}

TEST(SlotShares, NobodyBelowItsPartAndNoBetterPriorityMoves) {
  TenantAccount most = MakeTenant(1, 8);
  TenantAccount little = MakeTenant(1, 1);
  std::vector<Sequence> sequences = {MakeSequence(&most, 1, /*priority=*/-1),
                                     MakeSequence(&little, 2)};
  const std::vector<Sequence*> running = {&sequences[0], &sequences[1]};
  const SlotShares shares(9, 3);
  EXPECT_EQ(shares.FindToMove(running, 0), nullptr);
  EXPECT_EQ(shares.FindToMove(running, -1), &sequences[0]);
}

}  // namespace
}  // namespace tessera::coordinator
