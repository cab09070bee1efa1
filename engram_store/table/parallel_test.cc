#include "engram_store/table/parallel.h"

#include <atomic>
#include <vector>

#include "gtest/gtest.h"

namespace tessera::engram_store {
namespace {

TEST(ParallelFor, CallsEveryIndexOnce) {
  std::vector<std::atomic<int>> calls(1000);
  EXPECT_TRUE(ParallelFor(calls.size(), 4, [&](size_t i) {
                ++calls[i];
                return absl::OkStatus();
              }).ok());
  for (const std::atomic<int>& count : calls) {
    EXPECT_EQ(count, 1);
  }
}

TEST(ParallelFor, ReportsTheFailureOfTheSmallestIndex) {
  for (int repeat = 0; repeat < 20; ++repeat) {
    const absl::Status status = ParallelFor(100, 4, [](size_t i) {
      return i % 10 == 3 ? absl::DataLossError(std::to_string(i)) : absl::OkStatus();
    });
    EXPECT_EQ(status.message(), "3");
  }
}

TEST(ParallelFor, NothingToDoIsFine) {
  EXPECT_TRUE(
      ParallelFor(0, 4, [](size_t) { return absl::DataLossError("called"); }).ok());
}

}  // namespace
}  // namespace tessera::engram_store
