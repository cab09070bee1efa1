#include "coordinator/api/http/output_queue.h"

#include <string>

#include "gtest/gtest.h"

namespace tessera::coordinator {
namespace {

constexpr BacklogLimits kLimits = {
    .bytes = 10, .bytes_max = 20, .time = absl::Seconds(5)};
const absl::Time kNow = absl::FromUnixSeconds(1000);

TEST(OutputQueue, PartsFollowEachOtherWithoutLoss) {
  OutputQueue queue;
  std::string all;
  for (int i = 0; i < 3; ++i) {
    all += std::string(OutputQueue::kWriteBytes - 7, static_cast<char>('a' + i));
  }
  queue.Append(all);
  std::string written;
  while (queue.has_pending()) {
    const std::string_view part = queue.Begin();
    EXPECT_LE(part.size(), OutputQueue::kWriteBytes);
    written += part;
    queue.Finish();
  }
  EXPECT_EQ(written, all);
  EXPECT_EQ(queue.size(), 0u);
}

TEST(OutputQueue, WhatIsAppendedDuringAWriteComesNext) {
  OutputQueue queue;
  queue.Append("first");
  const std::string_view part = queue.Begin();
  queue.Append("second");
  EXPECT_EQ(part, "first");
  EXPECT_EQ(queue.size(), 11u);
  queue.Finish();
  EXPECT_EQ(queue.Begin(), "second");
}

TEST(OutputQueue, DroppingLeavesWhatIsBeingWritten) {
  OutputQueue queue;
  queue.Append("first");
  const std::string_view part = queue.Begin();
  queue.Append("second");
  queue.DropPending();
  EXPECT_FALSE(queue.has_pending());
  EXPECT_EQ(part, "first");
}

TEST(OutputQueue, ALittleTooMuchIsToleratedForSomeTime) {
  OutputQueue queue;
  queue.Append("eleven byte");
  EXPECT_TRUE(queue.Check(kLimits, kNow));
  EXPECT_TRUE(queue.Check(kLimits, kNow + absl::Seconds(5)));
  EXPECT_FALSE(queue.Check(kLimits, kNow + absl::Seconds(6)));
}

TEST(OutputQueue, CatchingUpStartsTheTimeAnew) {
  OutputQueue queue;
  queue.Append("eleven byte");
  EXPECT_TRUE(queue.Check(kLimits, kNow));
  queue.CaughtUp();
  EXPECT_TRUE(queue.Check(kLimits, kNow + absl::Seconds(6)));
}

TEST(OutputQueue, FarTooMuchIsNotTolerated) {
  OutputQueue queue;
  queue.Append("twenty-one bytes, yes");
  EXPECT_FALSE(queue.Check(kLimits, kNow));
}

}  // namespace
}  // namespace tessera::coordinator
