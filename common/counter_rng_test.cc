#include "common/counter_rng.h"

#include <array>
#include <cstdint>

#include "gtest/gtest.h"

namespace tessera {
namespace {

// The known-answer vectors of the Random123 distribution (kat_vectors, philox4x32 10).
TEST(CounterRng, MatchesThePublishedVectors) {
  const std::array<uint32_t, 4> zero = {0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8};
  EXPECT_EQ(CounterRng(0, 0).Words(0), zero);
  const std::array<uint32_t, 4> ones = {0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd};
  EXPECT_EQ(CounterRng(~0ull, ~0ull).Words(~0ull), ones);
}

TEST(CounterRng, UniformStaysBelowOneAndHasTheRightMean) {
  const CounterRng rng(7, 3);
  double sum = 0;
  for (uint64_t i = 0; i < 10000; ++i) {
    const double u = rng.Uniform(i);
    ASSERT_GE(u, 0.0);
    ASSERT_LT(u, 1.0);
    sum += u;
  }
  EXPECT_NEAR(sum / 10000, 0.5, 0.02);
}

TEST(CounterRng, SeedAndStreamChangeTheDraw) {
  EXPECT_NE(CounterRng(1, 0).Words(5), CounterRng(2, 0).Words(5));
  EXPECT_NE(CounterRng(1, 0).Words(5), CounterRng(1, 1).Words(5));
}

}  // namespace
}  // namespace tessera
