#include "cli/client/workload.h"

#include <cmath>

#include "common/counter_rng.h"
#include "common/status.h"
#include "common/status_macros.h"

namespace tessera::cli {
namespace {

constexpr double kTokensMax = 1 << 28;  // One GiB of ids.

// The streams of the generator: one for the shape of the run, one for what all prompts
// share, then one for each prompt.
constexpr uint64_t kShapeStream = 0;
constexpr uint64_t kPrefixStream = 1;
constexpr uint64_t kFirstPromptStream = 2;

// The draws of one request on the shape stream.
constexpr uint64_t kDrawsPerRequest = 3;

absl::Status Check(const WorkloadOptions& options) {
  if (options.num_prompts < 1 || options.input_len < 1 || options.output_len < 1 ||
      options.prefix_len < 0) {
    return InvalidArgumentF(
        "{} prompts of {} + {} tokens for {}: expected at least one of each",
        options.num_prompts, options.prefix_len, options.input_len, options.output_len);
  }
  if (!(options.range_ratio >= 0 && options.range_ratio < 1)) {
    return InvalidArgumentF("a range ratio of {}, expected one in [0, 1)",
                            options.range_ratio);
  }
  if (options.id_begin < 0 || options.id_begin >= options.id_end ||
      options.id_end > std::numeric_limits<int32_t>::max()) {
    return InvalidArgumentF("token ids from {} to {}: the range is empty",
                            options.id_begin, options.id_end - 1);
  }
  if (!(options.request_rate > 0)) {
    return InvalidArgumentF("a rate of {} requests a second, expected more than 0",
                            options.request_rate);
  }
  const double tokens =
      static_cast<double>(options.num_prompts) *
      (static_cast<double>(options.prefix_len) +
       static_cast<double>(options.input_len) * (1 + options.range_ratio));
  if (tokens > kTokensMax) {
    return InvalidArgumentF("{} tokens of prompts, at most {}", tokens, kTokensMax);
  }
  return absl::OkStatus();
}

int64_t DrawLength(int64_t mean, double ratio, double uniform) {
  const auto low =
      static_cast<int64_t>(std::floor(static_cast<double>(mean) * (1 - ratio)));
  const auto high =
      static_cast<int64_t>(std::ceil(static_cast<double>(mean) * (1 + ratio)));
  if (ratio == 0) {
    return mean;
  }
  const auto drawn =
      low + static_cast<int64_t>(uniform * static_cast<double>(high - low + 1));
  return std::max<int64_t>(drawn, 1);
}

void DrawIds(const WorkloadOptions& options, uint64_t stream, int64_t count,
             std::vector<int32_t>* ids) {
  const CounterRng rng(options.seed, stream);
  const auto width = static_cast<double>(options.id_end - options.id_begin);
  for (int64_t i = 0; i < count; ++i) {
    const double uniform = rng.Uniform(static_cast<uint64_t>(i));
    ids->push_back(
        static_cast<int32_t>(options.id_begin + static_cast<int64_t>(uniform * width)));
  }
}

}  // namespace

absl::StatusOr<std::vector<PlannedRequest>> PlanWorkload(const WorkloadOptions& options) {
  TESSERA_RETURN_IF_ERROR(Check(options));
  const CounterRng shape(options.seed, kShapeStream);
  std::vector<int32_t> prefix;
  DrawIds(options, kPrefixStream, options.prefix_len, &prefix);
  std::vector<PlannedRequest> requests(static_cast<size_t>(options.num_prompts));
  double start_seconds = 0;
  for (size_t i = 0; i < requests.size(); ++i) {
    PlannedRequest& request = requests[i];
    const uint64_t draw = i * kDrawsPerRequest;
    const int64_t input_len =
        DrawLength(options.input_len, options.range_ratio, shape.Uniform(draw));
    request.output_len =
        DrawLength(options.output_len, options.range_ratio, shape.Uniform(draw + 1));
    request.prompt_ids = prefix;
    DrawIds(options, kFirstPromptStream + i, input_len, &request.prompt_ids);
    request.start = absl::Seconds(start_seconds);
    // The gaps of a Poisson process are exponential; with an infinite rate they are 0.
    start_seconds += -std::log1p(-shape.Uniform(draw + 2)) / options.request_rate;
  }
  return requests;
}

}  // namespace tessera::cli
