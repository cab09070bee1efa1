// When the requests of a load run arrive: an open loop, in which no arrival waits for an
// answer.
//
// Pure functions of the options and the seed, so that two runs send at the same offsets.
// They stand beside Workload, which says what is sent.
#ifndef TESSERA_CLI_CLIENT_ARRIVALS_H_
#define TESSERA_CLI_CLIENT_ARRIVALS_H_

#include <cstddef>
#include <cstdint>
#include <limits>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"

namespace tessera::cli {

// How the rate grows from the first request to the last.
enum class RampUp { kNone, kLinear, kExponential };

struct ArrivalOptions {
  // Requests a second in the mean; infinity: all at once. Without effect on a ramp.
  double request_rate = std::numeric_limits<double>::infinity();
  // The shape of the gamma distribution of the gaps: 1 is a Poisson process, less is
  // burstier, more is more even, infinity is a metronome.
  double burstiness = 1;
  RampUp ramp_up = RampUp::kNone;
  double ramp_up_start_rate = 0;
  double ramp_up_end_rate = 0;
};

// `count` offsets from the start of the run, ascending. At a steady finite rate the last
// one is exactly count / request_rate, so that runs of different seeds offer the same
// load; the gaps keep their shape. kInvalidArgument: a rate or a burstiness that is not
// positive, or a ramp that falls or does not start above 0.
absl::StatusOr<std::vector<absl::Duration>> PlanArrivals(const ArrivalOptions& options,
                                                         size_t count, uint64_t seed);

}  // namespace tessera::cli

#endif  // TESSERA_CLI_CLIENT_ARRIVALS_H_
