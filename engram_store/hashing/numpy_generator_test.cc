#include "engram_store/hashing/numpy_generator.h"

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace tessera::engram_store {
namespace {

using ::testing::ElementsAre;

TEST(NumpyGenerator, SeedWordsAreThoseOfSeedSequence) {
  EXPECT_THAT(NumpySeedWords(10007),
              ElementsAre(0x77d32a348ad70d07u, 0x993ed609b84a4fa5u, 0xd5f972dec8698e49u,
                          0x7d79ebaebcf148deu));
}

TEST(NumpyGenerator, FirstOutputOfSeed10007IsThatOfPcg64) {
  NumpyGenerator generator(10007);
  EXPECT_EQ(generator.Next64(), 0xd2c3f84026661e33u);
}

TEST(NumpyGenerator, BoundedDrawsGiveTheMultipliersOfLayer1) {
  // half of V4.1's compressed vocabulary; the multipliers are 2 r + 1.
  constexpr uint64_t kHalf = 46539438283891;
  NumpyGenerator generator(10007);
  std::vector<uint64_t> multipliers;
  for (int i = 0; i < 4; ++i) {
    multipliers.push_back(2 * generator.Below(kHalf) + 1);
  }
  EXPECT_THAT(multipliers, ElementsAre(76632096046245u, 4839876093313u, 35959672319349u,
                                       73987337458391u));
}

TEST(NumpyGenerator, BoundedDrawsStayBelowAnAwkwardBound) {
  // Just above half of the range, so that nearly every second draw is rejected.
  constexpr uint64_t kBound = (uint64_t{1} << 63) + 1;
  NumpyGenerator generator(7);
  for (int i = 0; i < 1000; ++i) {
    EXPECT_LT(generator.Below(kBound), kBound);
  }
}

TEST(NumpyGeneratorDeathTest, SmallBoundsAreRefused) {
  NumpyGenerator generator(7);
  EXPECT_DEATH(generator.Below(uint64_t{1} << 32), "bound");
}

}  // namespace
}  // namespace tessera::engram_store
