#include "cli/client/arrivals.h"

#include <cmath>
#include <limits>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

#include "tests/testing/status_matchers.h"

namespace tessera::cli {
namespace {

using ::tessera::testing::IsOk;
using ::tessera::testing::StatusIs;

constexpr size_t kCount = 20'000;

std::vector<double> Gaps(const ArrivalOptions& options, uint64_t seed,
                         size_t count = kCount) {
  const auto arrivals = PlanArrivals(options, count, seed);
  EXPECT_THAT(arrivals, IsOk());
  std::vector<double> gaps;
  absl::Duration last;
  for (const absl::Duration arrival : *arrivals) {
    EXPECT_GE(arrival, last);
    gaps.push_back(absl::ToDoubleSeconds(arrival - last));
    last = arrival;
  }
  return gaps;
}

// The standard deviation over the mean.
double Variation(const std::vector<double>& values) {
  double mean = 0;
  double square = 0;
  for (const double value : values) {
    mean += value / static_cast<double>(values.size());
    square += value * value / static_cast<double>(values.size());
  }
  return std::sqrt(square - mean * mean) / mean;
}

TEST(Arrivals, TheSameSeedGivesTheSameOffsets) {
  ArrivalOptions options;
  options.request_rate = 10;
  EXPECT_EQ(Gaps(options, 1, 100), Gaps(options, 1, 100));
  EXPECT_NE(Gaps(options, 1, 100), Gaps(options, 2, 100));
}

TEST(Arrivals, TheLastIsWhereTheRatePutsIt) {
  ArrivalOptions options;
  options.request_rate = 20;
  for (const double burstiness : {0.3, 1.0, 4.0}) {
    options.burstiness = burstiness;
    const auto arrivals = PlanArrivals(options, 500, 3);
    ASSERT_THAT(arrivals, IsOk());
    EXPECT_NEAR(absl::ToDoubleSeconds(arrivals->back()), 25, 1e-6);
  }
}

TEST(Arrivals, GapsOfAPoissonProcessAreExponential) {
  ArrivalOptions options;
  options.request_rate = 50;
  const std::vector<double> gaps = Gaps(options, 11);
  // Of 20,000 exponential gaps the share above x mean is exp(-x), give or take 0.0035.
  for (const double x : {0.1, 0.5, 1.0, 2.0, 3.0}) {
    int above = 0;
    for (const double gap : gaps) {
      above += gap > x / 50 ? 1 : 0;
    }
    EXPECT_NEAR(above / static_cast<double>(kCount), std::exp(-x), 0.015) << x;
  }
}

TEST(Arrivals, NeighbouringGapsOfAPoissonProcessAreIndependent) {
  ArrivalOptions options;
  options.request_rate = 1;
  const std::vector<double> gaps = Gaps(options, 5);
  double covariance = 0;
  for (size_t i = 1; i < gaps.size(); ++i) {
    covariance += (gaps[i] - 1) * (gaps[i - 1] - 1) / static_cast<double>(kCount);
  }
  EXPECT_NEAR(covariance, 0, 0.035);  // Five standard deviations of 1 / sqrt(20,000).
}

TEST(Arrivals, BurstinessIsTheShapeOfTheGaps) {
  // A gamma distribution of shape k varies by 1 / sqrt(k).
  for (const double burstiness : {0.25, 0.5, 1.0, 2.0, 9.0}) {
    ArrivalOptions options;
    options.request_rate = 100;
    options.burstiness = burstiness;
    const double expected = 1 / std::sqrt(burstiness);
    EXPECT_NEAR(Variation(Gaps(options, 21)), expected, 0.05 * expected) << burstiness;
  }
}

TEST(Arrivals, AnInfiniteBurstinessIsAMetronome) {
  ArrivalOptions options;
  options.request_rate = 4;
  options.burstiness = std::numeric_limits<double>::infinity();
  for (const double gap : Gaps(options, 1, 50)) {
    EXPECT_NEAR(gap, 0.25, 1e-9);
  }
}

TEST(Arrivals, AnInfiniteRateIsAllAtOnce) {
  EXPECT_THAT(Gaps(ArrivalOptions(), 1, 5), ::testing::Each(0));
}

TEST(Arrivals, ARampEndsFasterThanItStarts) {
  ArrivalOptions options;
  options.burstiness = std::numeric_limits<double>::infinity();
  options.ramp_up_start_rate = 1;
  options.ramp_up_end_rate = 16;
  options.ramp_up = RampUp::kLinear;
  std::vector<double> gaps = Gaps(options, 1, 5);
  EXPECT_NEAR(gaps[0], 1, 1e-9);
  EXPECT_NEAR(gaps[2], 1 / 8.5, 1e-9);
  EXPECT_NEAR(gaps[4], 1.0 / 16, 1e-9);
  options.ramp_up = RampUp::kExponential;
  gaps = Gaps(options, 1, 5);
  EXPECT_NEAR(gaps[2], 0.25, 1e-9);
}

TEST(Arrivals, RefusesWhatIsNoProcess) {
  const auto refused = [](auto change) {
    ArrivalOptions options;
    change(&options);
    return PlanArrivals(options, 3, 0).status();
  };
  const auto is_bad = StatusIs(absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(refused([](auto* o) { o->request_rate = 0; }), is_bad);
  EXPECT_THAT(refused([](auto* o) { o->request_rate = std::nan(""); }), is_bad);
  EXPECT_THAT(refused([](auto* o) { o->burstiness = 0; }), is_bad);
  EXPECT_THAT(refused([](auto* o) { o->ramp_up = RampUp::kLinear; }), is_bad);
  EXPECT_THAT(refused([](auto* o) {
                o->ramp_up = RampUp::kExponential;
                o->ramp_up_start_rate = 2;
                o->ramp_up_end_rate = 1;
              }),
              is_bad);
}

}  // namespace
}  // namespace tessera::cli
