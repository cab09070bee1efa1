#include "cli/client/chart.h"

#include <cmath>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace tessera::cli {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;

TEST(AxisTicks, AreRoundAndCoverTheValues) {
  EXPECT_THAT(AxisTicks(0, 93, 6), ElementsAre(0, 20, 40, 60, 80, 100));
  EXPECT_THAT(AxisTicks(0, 5, 6), ElementsAre(0, 1, 2, 3, 4, 5));
  EXPECT_THAT(AxisTicks(0, 1201, 4), ElementsAre(0, 500, 1000, 1500));
}

TEST(AxisTicks, OfOneValueAreTwo) {
  EXPECT_GE(AxisTicks(0, 0, 6).size(), 2U);
  EXPECT_GE(AxisTicks(7, 7, 6).size(), 2U);
}

TEST(Chart, NamesAreEscaped) {
  const std::string svg =
      ChartSvg({"a<b", "x&y", "\"z\"", {{"<script>", {{1, 1}, {2, 2}}, true}}});
  EXPECT_THAT(svg, Not(HasSubstr("<script>")));
  EXPECT_THAT(svg, HasSubstr("a&lt;b"));
  EXPECT_THAT(svg, HasSubstr("x&amp;y"));
}

TEST(Chart, PointsLieInsideTheAxesAndTheLargestAtTheirEnds) {
  const std::string svg = ChartSvg({"t", "x", "y", {{"s", {{0, 0}, {5, 10}}, true}}});
  // The corners of the drawing: 64 from the left and 48 from the bottom of 640 x 360.
  EXPECT_THAT(svg, HasSubstr("points=\"64.0,312.0 624.0,56.0 \""));
}

TEST(Chart, ValuesThatAreNotFiniteAreLeftOut) {
  const std::string svg = ChartSvg(
      {"t", "x", "y", {{"s", {{1, std::nan("")}, {HUGE_VAL, 2}, {3, 4}}, true}}});
  EXPECT_THAT(svg, Not(HasSubstr("nan")));
  EXPECT_THAT(svg, Not(HasSubstr("inf")));
}

TEST(Chart, DotsAreNotJoined) {
  const std::string svg = ChartSvg({"t", "x", "y", {{"s", {{1, 2}, {3, 4}}, false}}});
  EXPECT_THAT(svg, Not(HasSubstr("<polyline")));
  EXPECT_THAT(svg, HasSubstr("<circle"));
}

}  // namespace
}  // namespace tessera::cli
