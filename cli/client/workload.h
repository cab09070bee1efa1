// The work of `tessera bench serve`: which prompts are sent, and when.
//
// Pure functions of the options and the seed, so that two runs send the same bytes at the
// same offsets.
#ifndef TESSERA_CLI_CLIENT_WORKLOAD_H_
#define TESSERA_CLI_CLIENT_WORKLOAD_H_

#include <cstdint>
#include <limits>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"

namespace tessera::cli {

struct WorkloadOptions {
  int64_t num_prompts = 1000;
  int64_t input_len = 1024;
  int64_t output_len = 128;
  // Lengths are uniform in [len x (1 - ratio), len x (1 + ratio)].
  double range_ratio = 0;
  // Token ids are drawn from [id_begin, id_end): by default from ids that are plain bytes
  // or short words in every tokenizer of the family, and no special tokens.
  int64_t id_begin = 10;
  int64_t id_end = 250;
  int64_t prefix_len = 0;  // Tokens that all prompts share, in front of input_len.
  // Requests a second in the mean, as a Poisson process; infinity: all at once.
  double request_rate = std::numeric_limits<double>::infinity();
  uint64_t seed = 0;
};

struct PlannedRequest {
  std::vector<int32_t> prompt_ids;
  int64_t output_len = 0;
  absl::Duration start;  // After the start of the run; never decreases.
};

// kInvalidArgument: no prompts, empty prompts, an empty range of ids, a rate that is not
// positive, a ratio outside [0, 1), or more than 2^28 tokens in all.
absl::StatusOr<std::vector<PlannedRequest>> PlanWorkload(const WorkloadOptions& options);

}  // namespace tessera::cli

#endif  // TESSERA_CLI_CLIENT_WORKLOAD_H_
