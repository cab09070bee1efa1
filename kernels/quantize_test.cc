// The number formats of fake quantisation, value by value.
#include <cmath>
#include <limits>
#include <vector>

#include "gtest/gtest.h"

#include "kernels/kernel_backend.h"
#include "tests/testing/each_backend.h"

namespace tessera::kernels {
namespace {

class Quantize : public EachBackend {
 protected:
  std::vector<float> Fp4(std::vector<float> values, Fp4Scale scale) {
    backend_->FakeQuantizeFp4(*stream_, RowOf(values), scale);
    return values;
  }
  std::vector<float> E4M3(std::vector<float> values) {
    backend_->FakeQuantizeE4M3(*stream_, RowOf(values));
    return values;
  }
  static TensorView RowOf(std::vector<float>& values) {
    return Floats(values, {1, static_cast<int64_t>(values.size())});
  }
};

using Values = std::vector<float>;

// 6 makes the scale 1, so that the rest is rounded as it stands.
TEST_P(Quantize, Fp4RoundsToTheNearestAndTiesToEven) {
  EXPECT_EQ(Fp4({6, 0.25F, 0.75F, 1.25F, 1.75F, 2.5F, 3.5F, 5}, Fp4Scale::kE8M0),
            Values({6, 0, 1, 1, 2, 2, 4, 4}));
  EXPECT_EQ(Fp4({-6, -0.75F, -1.25F, -1.75F, -2.5F, -3.5F, -5}, Fp4Scale::kE8M0),
            Values({-6, -1, -1, -2, -2, -4, -4}));
  EXPECT_EQ(Fp4({6, 0.26F, 0.74F, 1.26F, 1.74F, 2.51F, 3.49F, 5.01F}, Fp4Scale::kE8M0),
            Values({6, 0.5F, 0.5F, 1.5F, 1.5F, 3, 3, 6}));
}

TEST_P(Quantize, Fp4KeepsTheSignOfZero) {
  const Values out = Fp4({6, -0.0F, -0.1F, 0.1F}, Fp4Scale::kE8M0);
  EXPECT_TRUE(std::signbit(out[1]));
  EXPECT_TRUE(std::signbit(out[2]));
  EXPECT_FALSE(std::signbit(out[3]));
}

// The scale of a largest value 6 2^k is 2^k, and twice that just above it.
TEST_P(Quantize, Fp4ScalesAreExactAtPowersOfTwo) {
  for (const int exponent : {-120, -7, -1, 0, 5, 100}) {
    const float unit = std::ldexp(1.0F, exponent);
    EXPECT_EQ(Fp4({6 * unit, 0.5F * unit}, Fp4Scale::kE8M0),
              Values({6 * unit, 0.5F * unit}));
    const float above = std::nextafter(6 * unit, std::numeric_limits<float>::infinity());
    EXPECT_EQ(Fp4({above, 0.5F * unit}, Fp4Scale::kE8M0), Values({6 * unit, 0}));
  }
}

TEST_P(Quantize, Fp4ScalesHaveAFloor) {
  // 6 2^-126: steps of 2^-127 and no smaller, whatever the largest value is.
  EXPECT_EQ(Fp4({0x1p-127F, 0x1p-130F}, Fp4Scale::kE8M0), Values({0x1p-127F, 0}));
  EXPECT_EQ(Fp4({0, 0, 0}, Fp4Scale::kE8M0), Values({0, 0, 0}));
  // 6 2^-9: steps of 2^-10.
  EXPECT_EQ(Fp4({0x1p-10F, 0x1p-12F}, Fp4Scale::kE4M3), Values({0x1p-10F, 0}));
  EXPECT_EQ(Fp4({0, 0}, Fp4Scale::kE4M3), Values({0, 0}));
}

TEST_P(Quantize, Fp4WithAnE4M3ScaleIsLimitedWhereTheScaleIsRoundedDown) {
  // 6.375 / 6 is halfway between 1 and 1.125 and goes to 1, so 6.375 is beyond the end.
  EXPECT_EQ(Fp4({6.375F, -2.9F}, Fp4Scale::kE4M3), Values({6, -3}));
  // 6.4 / 6 = 1.0667 goes to 1.125; 6.4 / 1.125 = 5.69 goes to 6.
  EXPECT_EQ(Fp4({6.4F, 1.0F}, Fp4Scale::kE4M3), Values({6.75F, 1.125F}));
  // The largest scale is 448.
  EXPECT_EQ(Fp4({1e9F, 448.0F}, Fp4Scale::kE4M3), Values({2688, 448}));
}

TEST_P(Quantize, E4M3RoundsToTheNearestAndTiesToEven) {
  // 448 makes the scale 1. Near 1 steps are 1/8, near 16 they are 2, at the low end 2^-9.
  EXPECT_EQ(E4M3({448, 1.0625F, 1.1875F, -17, 19, 0x1p-10F, 0x3p-10F}),
            Values({448, 1, 1.25F, -16, 20, 0, 0x1p-8F}));
  EXPECT_EQ(E4M3({448, 1.07F, 1.18F, 433, 431, 0x1.1p-10F}),
            Values({448, 1.125F, 1.125F, 448, 416, 0x1p-9F}));
}

TEST_P(Quantize, E4M3ScalesAreExactAtPowersOfTwoAndHaveAFloor) {
  EXPECT_EQ(E4M3({448 * 0x1p-5F, 1.0F}), Values({14, 1}));
  const float above = std::nextafter(14.0F, 15.0F);
  EXPECT_EQ(E4M3({above, 0x1p-14F}), Values({14, 0}));
  // A largest value of 1e-4 gives the scale 2^-22 (2^-22.1 before rounding up), with
  // steps of 2^-31.
  EXPECT_EQ(E4M3({0x1p-31F, 0x1p-32F}), Values({0x1p-31F, 0}));
}

TEST_P(Quantize, AVectorThatIsNotFiniteBecomesNan) {
  for (const float damage : {std::numeric_limits<float>::quiet_NaN(),
                             std::numeric_limits<float>::infinity()}) {
    Values values(21, 1.5F);
    values[3] = damage;
    for (const Values& out :
         {Fp4(values, Fp4Scale::kE8M0), Fp4(values, Fp4Scale::kE4M3), E4M3(values)}) {
      for (const float value : out) {
        EXPECT_TRUE(std::isnan(value));
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Levels, Quantize, EveryLevel(), LevelName);

}  // namespace
}  // namespace tessera::kernels
