#include "kernels/cpu/thread_pool.h"

#include <atomic>
#include <cstdint>
#include <thread>
#include <vector>

#include "absl/status/status.h"
#include "gtest/gtest.h"

namespace tessera::kernels::cpu {
namespace {

TEST(ThreadPool, EveryElementIsVisitedOnce) {
  const auto pool = ThreadPool::Create({.num_threads = 4});
  ASSERT_TRUE(pool.ok());
  for (const int64_t count : {1, 3, 4, 5, 1000}) {
    std::vector<int> visits(static_cast<size_t>(count), 0);
    (*pool)->ParallelFor(count, 4, [&](int64_t begin, int64_t end, int) {
      for (int64_t i = begin; i < end; ++i) {
        ++visits[static_cast<size_t>(i)];
      }
    });
    EXPECT_EQ(visits, std::vector<int>(static_cast<size_t>(count), 1));
  }
}

TEST(ThreadPool, PartsAreGivenToThreadsInOrder) {
  const auto pool = ThreadPool::Create({.num_threads = 3});
  ASSERT_TRUE(pool.ok());
  std::vector<int64_t> begins(3, -1);
  std::vector<int64_t> ends(3, -1);
  (*pool)->ParallelFor(10, 3, [&](int64_t begin, int64_t end, int thread) {
    begins[static_cast<size_t>(thread)] = begin;
    ends[static_cast<size_t>(thread)] = end;
  });
  EXPECT_EQ(begins, (std::vector<int64_t>{0, 3, 6}));
  EXPECT_EQ(ends, (std::vector<int64_t>{3, 6, 10}));
}

TEST(ThreadPool, EveryElementOfASharedLoopIsVisitedOnce) {
  const auto pool = ThreadPool::Create({.num_threads = 4});
  ASSERT_TRUE(pool.ok());
  for (int round = 0; round < 200; ++round) {
    for (const int64_t count : {0, 1, 2, 3, 4, 5, 7, 64, 1000}) {
      for (const int64_t grain : {0, 1, 3, 2000}) {
        std::vector<std::atomic<int>> visits(static_cast<size_t>(count));
        (*pool)->ParallelForShared(count, grain, 4,
                                   [&](int64_t begin, int64_t end, int thread) {
                                     EXPECT_LT(begin, end);
                                     EXPECT_LT(thread, 4);
                                     for (int64_t i = begin; i < end; ++i) {
                                       ++visits[static_cast<size_t>(i)];
                                     }
                                   });
        for (const std::atomic<int>& visit : visits) {
          ASSERT_EQ(visit, 1) << count << ", grain " << grain;
        }
      }
    }
  }
}

// Ends only if others take what the thread that waits has left of its part.
TEST(ThreadPool, WhatASlowThreadLeavesIsDoneByOthers) {
  const auto pool = ThreadPool::Create({.num_threads = 3});
  ASSERT_TRUE(pool.ok());
  constexpr int64_t kCount = 300;
  for (int slow = 0; slow < 3; ++slow) {
    std::atomic<int64_t> done = 0;
    std::atomic<int64_t> held = 0;
    (*pool)->ParallelForShared(kCount, 1, 3, [&](int64_t begin, int64_t end, int thread) {
      if (thread == slow && held == 0) {
        held = end - begin;
        while (done + held < kCount) {
          std::this_thread::yield();
        }
      }
      while (held == 0) {  // nobody takes anything from the slow one before it has begun
        std::this_thread::yield();
      }
      done += end - begin;
    });
    EXPECT_EQ(done, kCount);
    EXPECT_EQ(held, kCount / 3 / 2);
  }
}

TEST(ThreadPool, ASharedLoopBelowItsGrainIsOneCall) {
  const auto pool = ThreadPool::Create({.num_threads = 2});
  ASSERT_TRUE(pool.ok());
  int calls = 0;
  (*pool)->ParallelForShared(8, 8, 2, [&](int64_t begin, int64_t end, int thread) {
    ++calls;
    EXPECT_EQ(end - begin, 8);
    EXPECT_EQ(thread, 0);
  });
  EXPECT_EQ(calls, 1);
}

TEST(ThreadPool, NothingRunsForAnEmptyRange) {
  const auto pool = ThreadPool::Create({.num_threads = 2});
  ASSERT_TRUE(pool.ok());
  int calls = 0;
  (*pool)->ParallelFor(0, 2, [&](int64_t, int64_t, int) { ++calls; });
  EXPECT_EQ(calls, 0);
}

TEST(ThreadPool, ALoopSeesWhatTheLoopBeforeItWrote) {
  const auto pool = ThreadPool::Create({.num_threads = 4});
  ASSERT_TRUE(pool.ok());
  constexpr int kRounds = 2000;
  std::vector<int64_t> values(64, 0);
  for (int round = 0; round < kRounds; ++round) {
    // Each thread reads what another one wrote in the round before.
    std::vector<int64_t> next(values.size());
    (*pool)->ParallelFor(64, 1 + round % 4, [&](int64_t begin, int64_t end, int) {
      for (int64_t i = begin; i < end; ++i) {
        next[static_cast<size_t>(i)] = values[static_cast<size_t>(63 - i)] + 1;
      }
    });
    values = next;
  }
  EXPECT_EQ(values, std::vector<int64_t>(64, kRounds));
}

TEST(ThreadPool, RefusesAThreadCountOutOfRange) {
  EXPECT_EQ(ThreadPool::Create({.num_threads = 0}).status().code(),
            absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(
      ThreadPool::Create({.num_threads = ThreadPool::kMaxThreads + 1}).status().code(),
      absl::StatusCode::kInvalidArgument);
}

TEST(ThreadPool, PinnedThreadsRunOnOneAllowedCpuEach) {
  const auto pool = ThreadPool::Create({.num_threads = 1, .pin_threads = true});
  EXPECT_TRUE(pool.ok()) << pool.status();
  EXPECT_EQ(
      ThreadPool::Create({.num_threads = ThreadPool::kMaxThreads, .pin_threads = true})
          .status()
          .code(),
      absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace tessera::kernels::cpu
