#include "kernels/cpu/thread_pool.h"

#include <atomic>
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
