#include "common/bounded_queue.h"

#include <thread>

#include "absl/status/status.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "gtest/gtest.h"

namespace tessera {
namespace {

TEST(BoundedQueue, RefusesWhatExceedsItsCapacity) {
  BoundedQueue<int> queue(2);
  EXPECT_TRUE(queue.TryPush(1).ok());
  EXPECT_TRUE(queue.TryPush(2).ok());
  EXPECT_EQ(queue.TryPush(3).code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(*queue.Pop(), 1);
  EXPECT_EQ(queue.size(), 1u);
}

TEST(BoundedQueue, PopGivesUpAtItsDeadline) {
  BoundedQueue<int> queue(1);
  EXPECT_EQ(queue.Pop(absl::Now() + absl::Milliseconds(5)).status().code(),
            absl::StatusCode::kDeadlineExceeded);
}

TEST(BoundedQueue, CloseWakesAWaiterAndKeepsWhatWasPushed) {
  BoundedQueue<int> queue(2);
  std::thread waiter([&] {
    EXPECT_EQ(*queue.Pop(), 7);
    EXPECT_EQ(queue.Pop().status().code(), absl::StatusCode::kCancelled);
  });
  EXPECT_TRUE(queue.TryPush(7).ok());
  queue.Close();
  waiter.join();
  EXPECT_EQ(queue.TryPush(8).code(), absl::StatusCode::kCancelled);
}

}  // namespace
}  // namespace tessera
