#include "worker/comm/in_process/group_barrier.h"

#include <thread>
#include <vector>

#include "gtest/gtest.h"

namespace tessera::worker {
namespace {

using Outcome = GroupBarrier::Outcome;

TEST(GroupBarrier, WritesBeforeEnterAreSeenByAllRanksAfterIt) {
  constexpr int kRanks = 8;
  constexpr int kRounds = 500;
  GroupBarrier barrier(kRanks, Clock::Real());
  std::vector<int> written(kRanks, 0);
  std::vector<int> stale(kRanks, 0);
  std::vector<std::thread> ranks;
  for (int rank = 0; rank < kRanks; ++rank) {
    ranks.emplace_back([&, rank] {
      for (int round = 1; round <= kRounds; ++round) {
        written[static_cast<size_t>(rank)] = round;
        if (barrier.Enter(absl::InfiniteFuture()) != Outcome::kMet) {
          ++stale[static_cast<size_t>(rank)];
        }
        for (const int other : written) {
          stale[static_cast<size_t>(rank)] += other != round ? 1 : 0;
        }
        barrier.Leave();
      }
    });
  }
  for (std::thread& rank : ranks) {
    rank.join();
  }
  EXPECT_EQ(stale, std::vector<int>(kRanks, 0));
}

TEST(GroupBarrier, TheRankWhoseDeadlinePassesKillsIt) {
  SimulatedClock clock;
  GroupBarrier barrier(2, &clock);
  EXPECT_EQ(barrier.Enter(clock.Now()), Outcome::kTimeout);
  EXPECT_TRUE(barrier.dead());
  EXPECT_EQ(barrier.Enter(absl::InfiniteFuture()), Outcome::kDead);
}

TEST(GroupBarrier, ADeadlineOfASimulatedClockIsNoticedWhileWaiting) {
  SimulatedClock clock;
  GroupBarrier barrier(2, &clock);
  Outcome outcome = Outcome::kMet;
  std::thread rank([&] { outcome = barrier.Enter(clock.Now() + absl::Seconds(5)); });
  while (!barrier.dead()) {
    clock.Advance(absl::Seconds(1));
    std::this_thread::yield();
  }
  rank.join();
  EXPECT_EQ(outcome, Outcome::kTimeout);
}

TEST(GroupBarrier, KillWakesEveryWaiterAndTheFirstReasonStays) {
  constexpr int kWaiters = 3;
  GroupBarrier barrier(kWaiters + 1, Clock::Real());
  std::vector<Outcome> outcomes(kWaiters, Outcome::kMet);
  std::vector<std::thread> ranks;
  for (int rank = 0; rank < kWaiters; ++rank) {
    ranks.emplace_back([&, rank] {
      outcomes[static_cast<size_t>(rank)] = barrier.Enter(absl::InfiniteFuture());
    });
  }
  barrier.Kill("first");
  barrier.Kill("second");
  for (std::thread& rank : ranks) {
    rank.join();
  }
  EXPECT_EQ(outcomes, std::vector<Outcome>(kWaiters, Outcome::kDead));
  EXPECT_EQ(barrier.reason(), "first");
}

TEST(GroupBarrier, ARankThatPassedEnterMayLeaveAfterDeath) {
  GroupBarrier barrier(1, Clock::Real());
  ASSERT_EQ(barrier.Enter(absl::InfiniteFuture()), Outcome::kMet);
  barrier.Kill("fault");
  barrier.Leave();
  EXPECT_EQ(barrier.Enter(absl::InfiniteFuture()), Outcome::kDead);
}

}  // namespace
}  // namespace tessera::worker
