#include "engram_store/hashing/primes.h"

#include <vector>

#include "gtest/gtest.h"

namespace tessera::engram_store {
namespace {

TEST(IsPrime, AgreesWithASieveBelow100000) {
  constexpr uint32_t kLimit = 100000;
  std::vector<bool> composite(kLimit, false);
  for (uint32_t i = 2; i < kLimit; ++i) {
    EXPECT_EQ(IsPrime(i), !composite[i]) << i;
    for (uint64_t j = uint64_t{i} * i; j < kLimit; j += i) {
      composite[j] = true;
    }
  }
  EXPECT_FALSE(IsPrime(0));
  EXPECT_FALSE(IsPrime(1));
}

TEST(IsPrime, KnowsTheEdgesOf32Bits) {
  EXPECT_TRUE(IsPrime(4294967291u));
  EXPECT_FALSE(IsPrime(4294967295u));
  EXPECT_FALSE(IsPrime(3215031751u));  // A strong pseudoprime to 2, 3, 5 and 7.
}

TEST(PrimeAllocator, NeverHandsOutAPrimeTwice) {
  PrimeAllocator allocator;
  EXPECT_EQ(*allocator.NextAbove(49), 53u);
  EXPECT_EQ(*allocator.NextAbove(53), 59u);
  EXPECT_EQ(*allocator.NextAbove(49), 61u);
}

TEST(PrimeAllocator, RefusesWhatDoesNotFit32Bits) {
  PrimeAllocator allocator;
  EXPECT_EQ(*allocator.NextAbove(4294967290u), 4294967291u);
  EXPECT_EQ(allocator.NextAbove(4294967290u).status().code(),
            absl::StatusCode::kInvalidArgument);
  EXPECT_FALSE(allocator.NextAbove(uint64_t{1} << 40).ok());
}

}  // namespace
}  // namespace tessera::engram_store
