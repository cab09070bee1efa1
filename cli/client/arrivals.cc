#include "cli/client/arrivals.h"

#include <algorithm>
#include <cmath>
#include <numbers>

#include "common/counter_rng.h"
#include "common/status.h"
#include "common/status_macros.h"

namespace tessera::cli {
namespace {

// Far above the streams that prompts are drawn from, so that a change of the rate leaves
// the prompts as they are.
constexpr uint64_t kFirstArrivalStream = uint64_t{1} << 40;

// The draws of one gap, one after the other.
class GapDraws {
 public:
  GapDraws(uint64_t seed, uint64_t stream) : rng_(seed, stream) {}

  // In (0, 1], so that its logarithm exists.
  double Uniform() { return 1 - rng_.Uniform(counter_++); }

  // Box and Muller's transform.
  double Normal() {
    const double radius = std::sqrt(-2 * std::log(Uniform()));
    return radius * std::cos(2 * std::numbers::pi * Uniform());
  }

 private:
  const CounterRng rng_;
  uint64_t counter_ = 0;
};

// Of scale 1. Marsaglia and Tsang, "A Simple Method for Generating Gamma Variables" (ACM
// TOMS 26, 2000): a normal variate, cubed and accepted in more than 95 of 100 cases.
double GammaAbove1(double shape, GapDraws* draws) {
  const double d = shape - 1.0 / 3;
  const double c = 1 / std::sqrt(9 * d);
  constexpr int kAttemptsMax = 100;  // 1e-130 of all draws come that far.
  for (int attempt = 0; attempt < kAttemptsMax; ++attempt) {
    const double x = draws->Normal();
    const double root = 1 + c * x;
    const double uniform = draws->Uniform();
    if (root <= 0) {
      continue;
    }
    const double v = root * root * root;
    if (std::log(uniform) < x * x / 2 + d - d * v + d * std::log(v)) {
      return d * v;
    }
  }
  return shape;
}

double Gamma(double shape, GapDraws* draws) {
  if (shape == 1) {
    return -std::log(draws->Uniform());
  }
  if (shape > 1) {
    return GammaAbove1(shape, draws);
  }
  // The same paper, §6: one of the next higher shape, scaled by a power of a uniform one.
  const double higher = GammaAbove1(shape + 1, draws);
  return higher * std::pow(draws->Uniform(), 1 / shape);
}

double RateAt(const ArrivalOptions& options, double progress) {
  const double start = options.ramp_up_start_rate;
  const double end = options.ramp_up_end_rate;
  switch (options.ramp_up) {
    case RampUp::kNone:
      return options.request_rate;
    case RampUp::kLinear:
      return start + (end - start) * progress;
    case RampUp::kExponential:
      return start * std::pow(end / start, progress);
  }
  return options.request_rate;
}

absl::Status Check(const ArrivalOptions& options) {
  if (!(options.request_rate > 0)) {
    return InvalidArgumentF("a rate of {} requests a second, expected more than 0",
                            options.request_rate);
  }
  if (!(options.burstiness > 0)) {
    return InvalidArgumentF("a burstiness of {}, expected more than 0",
                            options.burstiness);
  }
  if (options.ramp_up != RampUp::kNone &&
      !(options.ramp_up_start_rate > 0 &&
        options.ramp_up_start_rate <= options.ramp_up_end_rate &&
        std::isfinite(options.ramp_up_end_rate))) {
    return InvalidArgumentF(
        "a ramp from {} to {} requests a second, expected 0 < start <= end",
        options.ramp_up_start_rate, options.ramp_up_end_rate);
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::vector<absl::Duration>> PlanArrivals(const ArrivalOptions& options,
                                                         size_t count, uint64_t seed) {
  TESSERA_RETURN_IF_ERROR(Check(options));
  const bool steady = options.ramp_up == RampUp::kNone;
  std::vector<double> seconds(count, 0);
  if (steady && std::isinf(options.request_rate)) {
    return std::vector<absl::Duration>(count, absl::ZeroDuration());
  }
  double now = 0;
  const double last = count > 1 ? static_cast<double>(count - 1) : 1;
  for (size_t i = 0; i < count; ++i) {
    GapDraws draws(seed, kFirstArrivalStream + i);
    const double gap = std::isinf(options.burstiness)
                           ? 1
                           : Gamma(options.burstiness, &draws) / options.burstiness;
    now += gap / RateAt(options, static_cast<double>(i) / last);
    seconds[i] = now;
  }
  const double scale =
      steady && now > 0 ? static_cast<double>(count) / options.request_rate / now : 1;
  std::vector<absl::Duration> arrivals;
  arrivals.reserve(count);
  for (const double second : seconds) {
    arrivals.push_back(absl::Seconds(second * scale));
  }
  return arrivals;
}

}  // namespace tessera::cli
