#include "coordinator/scheduler/waiting_queue.h"

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "gtest/gtest.h"

#include "tests/testing/status_matchers.h"

namespace tessera::coordinator {
namespace {

using ::tessera::testing::IsOk;
using ::tessera::testing::StatusIs;

class WaitingQueueTest : public ::testing::Test {
 protected:
  // Makes a sequence of 10 tokens, of 20 at most.
  Sequence* Make(const std::string& tenant, int32_t priority = 0) {
    auto sequence = std::make_unique<Sequence>();
    sequence->tenant = queue_->Account(tenant);
    sequence->spec.priority = priority;
    sequence->spec.deadline = absl::InfiniteFuture();
    sequence->order = sequences_.size();
    sequence->tokens.assign(10, 1);
    sequence->max_length = 20;
    sequences_.push_back(std::move(sequence));
    return sequences_.back().get();
  }

  Sequence* Add(const std::string& tenant, int32_t priority = 0) {
    Sequence* sequence = Make(tenant, priority);
    queue_->Add(sequence);
    return sequence;
  }

  // How many more sequences of `tenant` the queue takes.
  int64_t Fill(const std::string& tenant) {
    int64_t count = 0;
    for (; queue_->CheckRoom(*queue_->Account(tenant)).ok(); ++count) {
      Add(tenant);
    }
    return count;
  }

  Sequence* Front() const { return queue_->Front(absl::UnixEpoch()); }

  void Configure(std::vector<TenantPolicy> tenants) {
    SchedulerOptions options;
    options.max_waiting = 16;
    options.tenants = std::move(tenants);
    queue_ = std::make_unique<WaitingQueue>(options);
  }

  void SetUp() override { Configure({}); }

  std::unique_ptr<WaitingQueue> queue_;
  std::vector<std::unique_ptr<Sequence>> sequences_;
};

TEST_F(WaitingQueueTest, TheTenantWithTheLeastVirtualTimeIsNext) {
  Sequence* a = Add("a");
  Sequence* b = Add("b");
  EXPECT_EQ(Front(), a);
  a->tenant->virtual_time = 3;
  EXPECT_EQ(Front(), b);
  b->tenant->pending_tokens = 4;
  EXPECT_EQ(Front(), a);
}

TEST_F(WaitingQueueTest, APriorityComesBeforeFairness) {
  Sequence* plain = Add("a");
  Sequence* urgent = Add("b", -1);
  urgent->tenant->virtual_time = 1000;
  EXPECT_EQ(Front(), urgent);
  queue_->Remove(urgent);
  EXPECT_EQ(Front(), plain);
}

TEST_F(WaitingQueueTest, AnIdleTenantSavesUpNothing) {
  Sequence* busy = Add("busy");
  busy->tenant->virtual_time = 500;
  Sequence* back = Add("idle");
  EXPECT_DOUBLE_EQ(back->tenant->virtual_time, 500);
  queue_->Remove(busy);
  queue_->Remove(back);
  busy->tenant->virtual_time = 900;
  // Nobody waits any more: nobody is behind.
  EXPECT_DOUBLE_EQ(Add("third")->tenant->virtual_time, 900);
  EXPECT_DOUBLE_EQ(Add("fourth")->tenant->virtual_time, 900);
}

TEST_F(WaitingQueueTest, ATenantInDebtKeepsItWhenItComesBack) {
  Sequence* busy = Add("busy");
  Sequence* greedy = Add("greedy");
  greedy->tenant->virtual_time = 700;
  queue_->Remove(greedy);
  queue_->Add(greedy);
  EXPECT_DOUBLE_EQ(greedy->tenant->virtual_time, 700);
  EXPECT_EQ(Front(), busy);
}

TEST_F(WaitingQueueTest, AQuotaHoldsBackItsTenantAlone) {
  Configure({{.name = "a", .max_running_tokens = 30}});
  Add("a")->tenant->running_tokens = 11;
  Sequence* other = Add("b");
  EXPECT_EQ(Front(), other);
  queue_->Remove(other);
  EXPECT_EQ(Front(), nullptr);
}

TEST_F(WaitingQueueTest, WhatIsOverdueOrHasAllItsTokensIsPassedOver) {
  Sequence* overdue = Make("a");
  overdue->spec.deadline = absl::UnixEpoch();
  queue_->Add(overdue);
  Sequence* full = Make("a");
  full->unaccepted_samples = 10;
  queue_->Add(full);
  EXPECT_EQ(Front(), nullptr);
  Sequence* next = Add("a");
  EXPECT_EQ(Front(), next);
}

TEST_F(WaitingQueueTest, ALoneTenantMayFillTheQueue) { EXPECT_EQ(Fill("a"), 16); }

TEST_F(WaitingQueueTest, BesideOthersATenantLeavesAsMuchAsItTakes) {
  queue_->Account("b");
  EXPECT_EQ(Fill("a"), 8);
  EXPECT_EQ(Fill("b"), 4);
  EXPECT_EQ(Fill("c"), 2);
}

TEST_F(WaitingQueueTest, ATenantThatWasAloneYieldsOnceOthersCame) {
  EXPECT_EQ(Fill("flood"), 16);
  EXPECT_EQ(Fill("late"), 0);
  for (size_t i = 0; i < 6; ++i) {
    queue_->Remove(sequences_[i].get());
    EXPECT_EQ(Fill("flood"), 0);
  }
  EXPECT_GT(Fill("late"), 0);
}

TEST_F(WaitingQueueTest, ConfiguredTenantsHavePlacesThatNobodyElseTakes) {
  Configure({{.name = "a", .weight = 3}, {.name = "b", .weight = 1}});
  EXPECT_EQ(Fill("c"), 4);
  EXPECT_GE(Fill("b"), 2);
  EXPECT_GE(Fill("a"), 6);
  EXPECT_LE(queue_->size(), 16);
  EXPECT_THAT(queue_->CheckInvariants({}), IsOk());
}

TEST_F(WaitingQueueTest, TenantsThatNobodyNamedHaveTheOthersGrants) {
  SchedulerOptions options;
  options.other_tenants = {.name = "*", .weight = 2, .max_running_tokens = 30};
  WaitingQueue queue(options);
  EXPECT_EQ(queue.Account("a")->policy.weight, 2);
  EXPECT_EQ(queue.Account("a")->policy.max_running_tokens, 30);
  EXPECT_EQ(queue.Account("a")->policy.name, "a");
}

TEST_F(WaitingQueueTest, ManyNamesLeaveNothingBehind) {
  Sequence* kept = Add("kept");
  for (int i = 0; i < 5000; ++i) {
    queue_->Account(std::to_string(i));
  }
  EXPECT_EQ(queue_->Account("kept"), kept->tenant);
  EXPECT_THAT(queue_->CheckInvariants({}), IsOk());
}

TEST_F(WaitingQueueTest, TheRecountFindsWhatRunsBesideTheBooks) {
  Sequence* sequence = Make("a");
  EXPECT_THAT(queue_->CheckInvariants({sequence}), StatusIs(absl::StatusCode::kInternal));
}

TEST_F(WaitingQueueTest, NewGrantsMoveSeatsAndWeightsOfThoseThatWait) {
  Configure({{.name = "a"}, {.name = "b"}});
  Add("a");
  Sequence* other = Add("other");
  const std::vector<TenantPolicy> tenants = {{.name = "other", .weight = 3}};
  queue_->SetTenants(tenants, {.name = "", .weight = 2});
  EXPECT_EQ(queue_->Account("a")->policy.weight, 2);
  EXPECT_EQ(queue_->Account("a")->num_seats, 0);
  EXPECT_EQ(other->tenant->policy.weight, 3);
  EXPECT_EQ(other->tenant->num_seats, 8);
  EXPECT_THAT(queue_->CheckInvariants({}), IsOk());
  // Who was named at the start keeps its place in reports.
  EXPECT_EQ(queue_->Report().size(), 3u);
  EXPECT_EQ(queue_->Report()[2].num_waiting, 1);
  queue_->SetTenants({}, {});
  EXPECT_EQ(queue_->Report().size(), 2u);
  EXPECT_THAT(queue_->CheckInvariants({}), IsOk());
}

TEST_F(WaitingQueueTest, ALowerQuotaLetsGoOnWhatRunsAndTheLongRunAlone) {
  Configure({{.name = "a", .max_running_tokens = 40}});
  Sequence* first = Make("a");
  Sequence* second = Make("a");
  Sequence* waiting = Add("a");
  first->prefilling = second->prefilling = waiting->prefilling = true;
  first->tenant->Enter(*first);
  first->tenant->Enter(*second);
  const std::vector<TenantPolicy> tenants = {{.name = "a", .max_running_tokens = 15}};
  queue_->SetTenants(tenants, {});
  EXPECT_THAT(queue_->CheckInvariants({first, second}), IsOk());
  EXPECT_EQ(Front(), nullptr);
  first->tenant->Leave(*first);
  EXPECT_EQ(Front(), nullptr);
  first->tenant->Leave(*second);
  EXPECT_EQ(Front(), waiting);
  queue_->Remove(waiting);
  waiting->tenant->Enter(*waiting);
  EXPECT_THAT(queue_->CheckInvariants({waiting}), IsOk());
}

}  // namespace
}  // namespace tessera::coordinator
