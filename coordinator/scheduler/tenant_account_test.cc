#include "coordinator/scheduler/tenant_account.h"

#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace tessera::coordinator {
namespace {

using ::testing::ElementsAre;

Sequence MakeSequence(TenantAccount* tenant, uint64_t order, size_t length,
                      size_t num_blocks) {
  Sequence sequence;
  sequence.tenant = tenant;
  sequence.order = order;
  sequence.tokens.assign(length, 1);
  sequence.max_length = static_cast<int64_t>(length) + 10;
  sequence.blocks.assign(num_blocks, 0);
  sequence.prefilling = true;
  return sequence;
}

TEST(TenantAccount, TimeGoesByWithTokensForTheWeight) {
  TenantAccount heavy;
  heavy.policy.weight = 4;
  heavy.Charge(100, /*prefill=*/false);
  EXPECT_DOUBLE_EQ(heavy.virtual_time, 25);
  EXPECT_EQ(heavy.scheduled_tokens, 100u);
}

TEST(TenantAccount, AnAdmittedPromptCountsBeforeItIsPrefilled) {
  TenantAccount tenant;
  Sequence sequence = MakeSequence(&tenant, 1, 60, 0);
  tenant.Enter(sequence);
  EXPECT_DOUBLE_EQ(tenant.admission_time(), 60);
  sequence.planned = 20;
  tenant.Charge(20, /*prefill=*/true);
  EXPECT_DOUBLE_EQ(tenant.admission_time(), 60);
  EXPECT_EQ(tenant.pending_tokens, 40);
  tenant.Leave(sequence);
  EXPECT_EQ(tenant.pending_tokens, 0);
  EXPECT_DOUBLE_EQ(tenant.admission_time(), 20);
}

TEST(TenantAccount, AQuotaCountsTheGreatestLengthsOfWhatRuns) {
  TenantAccount tenant;
  tenant.policy.max_running_tokens = 100;
  const Sequence first = MakeSequence(&tenant, 1, 50, 0);
  const Sequence second = MakeSequence(&tenant, 2, 31, 0);
  EXPECT_TRUE(tenant.Allows(first));
  tenant.Enter(first);
  EXPECT_FALSE(tenant.Allows(second));
  tenant.Leave(first);
  EXPECT_TRUE(tenant.Allows(second));
}

TEST(PrefillsBefore, PriorityThenTheTenantBehindThenTheShortest) {
  TenantAccount behind;
  TenantAccount ahead;
  ahead.virtual_time = 5;
  Sequence urgent = MakeSequence(&ahead, 4, 900, 0);
  urgent.spec.priority = -1;
  const Sequence longer = MakeSequence(&behind, 1, 500, 0);
  const Sequence shorter = MakeSequence(&behind, 3, 20, 0);
  const Sequence of_other = MakeSequence(&ahead, 2, 10, 0);
  std::vector<const Sequence*> order = {&of_other, &longer, &shorter, &urgent};
  std::sort(order.begin(), order.end(), PrefillsBefore());
  EXPECT_THAT(order, ElementsAre(&urgent, &shorter, &longer, &of_other));
}

TEST(SortForPreemption, TheTenantThatHoldsMostForItsWeightLosesItsNewestFirst) {
  TenantAccount light;
  TenantAccount heavy;
  heavy.policy.weight = 4;
  Sequence light_old = MakeSequence(&light, 1, 8, 3);
  Sequence heavy_old = MakeSequence(&heavy, 2, 8, 6);
  Sequence light_new = MakeSequence(&light, 3, 8, 3);
  Sequence heavy_new = MakeSequence(&heavy, 4, 8, 6);
  std::vector<Sequence*> running = {&light_old, &heavy_old, &light_new, &heavy_new};
  SortForPreemption(&running);
  // Held for the weight, up to and with each: 1.5, 3, 3, 6.
  EXPECT_THAT(running, ElementsAre(&heavy_old, &light_old, &heavy_new, &light_new));
}

TEST(SortForPreemption, AWorsePriorityGoesFirstWhateverItsTenantHolds) {
  TenantAccount big;
  TenantAccount small;
  Sequence best = MakeSequence(&big, 2, 8, 50);
  Sequence worst = MakeSequence(&small, 1, 8, 1);
  worst.spec.priority = 1;
  std::vector<Sequence*> running = {&worst, &best};
  SortForPreemption(&running);
  EXPECT_THAT(running, ElementsAre(&best, &worst));
}

TEST(SortForPreemption, InsideATenantTheLatestDeadlineGoesFirst) {
  TenantAccount tenant;
  Sequence soon = MakeSequence(&tenant, 2, 8, 1);
  Sequence late = MakeSequence(&tenant, 1, 8, 1);
  soon.spec.deadline = absl::UnixEpoch() + absl::Seconds(1);
  late.spec.deadline = absl::UnixEpoch() + absl::Seconds(2);
  std::vector<Sequence*> running = {&late, &soon};
  SortForPreemption(&running);
  EXPECT_THAT(running, ElementsAre(&soon, &late));
}

}  // namespace
}  // namespace tessera::coordinator
