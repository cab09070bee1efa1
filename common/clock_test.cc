#include "common/clock.h"

#include "absl/time/time.h"
#include "gtest/gtest.h"

namespace tessera {
namespace {

TEST(SimulatedClock, MovesOnlyWhenTold) {
  SimulatedClock clock(absl::FromUnixSeconds(100));
  EXPECT_EQ(clock.Now(), absl::FromUnixSeconds(100));
  clock.Advance(absl::Seconds(2));
  clock.Sleep(absl::Seconds(3));
  EXPECT_EQ(clock.Now(), absl::FromUnixSeconds(105));
}

TEST(RealClock, DoesNotGoBackwards) {
  const absl::Time first = Clock::Real()->Now();
  EXPECT_LE(first, Clock::Real()->Now());
}

}  // namespace
}  // namespace tessera
