// The reduction of angles gives the sines and cosines of the library, over all sizes of
// position and frequency, in whose place kernels use it.
#include "kernels/cuda/primitives/sine_cosine.cuh"

#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <random>

#include "gtest/gtest.h"

namespace tessera::kernels::cuda {
namespace {

TEST(SineCosine, ReducedAnglesAreWithinAnEighthOfATurn) {
  constexpr double kEighth = 0x1.921fb54442d18p-1;
  std::mt19937_64 random(1);
  std::uniform_real_distribution<float> exponent(-20.0F, 31.0F);
  for (int i = 0; i < 100'000; ++i) {
    const double angle = std::exp2(exponent(random)) * (i % 2 == 0 ? 1.0F : -1.0F);
    const ReducedAngle reduced = ReduceAngle(angle);
    // A quotient next to a half may round to either side of it.
    EXPECT_LE(std::abs(reduced.rest), kEighth * (1 + 0x1p-20)) << angle;
  }
}

TEST(SineCosine, FloatsAreThoseOfTheLibrary) {
  std::mt19937_64 random(2);
  std::uniform_real_distribution<float> exponent(-20.0F, 31.0F);
  for (int i = 0; i < 1'000'000; ++i) {
    const float angle = std::exp2(exponent(random)) * (i % 2 == 0 ? 1.0F : -1.0F);
    const ReducedAngle reduced = ReduceAngle(angle);
    const bool swapped = (reduced.quarters & 1) != 0;
    const double sine = swapped ? std::cos(reduced.rest) : std::sin(reduced.rest);
    const double signed_sine = (reduced.quarters & 2) != 0 ? -sine : sine;
    ASSERT_EQ(static_cast<float>(signed_sine),
              static_cast<float>(std::sin(static_cast<double>(angle))))
        << angle;
    const double cosine = swapped ? -std::sin(reduced.rest) : std::cos(reduced.rest);
    const double signed_cosine = (reduced.quarters & 2) != 0 ? -cosine : cosine;
    ASSERT_EQ(static_cast<float>(signed_cosine),
              static_cast<float>(std::cos(static_cast<double>(angle))))
        << angle;
  }
}

}  // namespace
}  // namespace tessera::kernels::cuda
