#include "cli/client/workload.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <numeric>
#include <string_view>
#include <utility>

#include "cli/client/dataset_file.h"

#include "common/counter_rng.h"
#include "common/status.h"
#include "common/status_macros.h"

namespace tessera::cli {
namespace {

constexpr double kTokensMax = 1 << 28;  // One GiB of ids.

// The streams of the generator: one for the shape of the run, then one for each prefix
// that prompts share, then one for each prompt.
constexpr uint64_t kShapeStream = 0;
constexpr uint64_t kFirstPrefixStream = 1;
constexpr uint64_t kFirstPromptStream = uint64_t{1} << 32;

// The draws of one request on the shape stream.
constexpr uint64_t kDrawsPerRequest = 2;

// Words that are one token with the space in front of them in the tokenizers of all
// families that are in wide use.
constexpr std::array<std::string_view, 64> kWords = {
    "the",   "of",   "and",  "to",   "in",    "is",    "that",  "for",   "it",    "as",
    "was",   "with", "be",   "by",   "on",    "not",   "he",    "his",   "but",   "at",
    "are",   "this", "have", "from", "or",    "had",   "an",    "they",  "which", "one",
    "you",   "were", "all",  "her",  "she",   "there", "would", "their", "we",    "him",
    "been",  "has",  "when", "who",  "will",  "no",    "more",  "if",    "out",   "so",
    "up",    "said", "what", "its",  "about", "than",  "into",  "them",  "can",   "only",
    "other", "time", "new",  "some"};

absl::Status CheckTokens(const WorkloadOptions& options, double tokens_per_prompt) {
  const double tokens = static_cast<double>(options.num_prompts) * tokens_per_prompt;
  if (tokens > kTokensMax) {
    return InvalidArgumentF("{} tokens of prompts, at most {}", tokens, kTokensMax);
  }
  return absl::OkStatus();
}

absl::Status CheckRandom(const WorkloadOptions& options) {
  if (options.input_len < 1 || options.output_len < 1 || options.prefix_len < 0) {
    return InvalidArgumentF("prompts of {} + {} tokens for {}: expected one of each",
                            options.prefix_len, options.input_len, options.output_len);
  }
  if (!(options.range_ratio >= 0 && options.range_ratio < 1)) {
    return InvalidArgumentF("a range ratio of {}, expected one in [0, 1)",
                            options.range_ratio);
  }
  return CheckTokens(
      options, static_cast<double>(options.prefix_len) +
                   static_cast<double>(options.input_len) * (1 + options.range_ratio));
}

absl::Status CheckPrefixRepetition(const WorkloadOptions& options) {
  if (options.repeated_prefix_len < 0 || options.repeated_suffix_len < 0 ||
      options.repeated_prefix_len + options.repeated_suffix_len < 1 ||
      options.repeated_output_len < 1 || options.num_prefixes < 1 ||
      options.num_prefixes > options.num_prompts) {
    return InvalidArgumentF(
        "{} prompts of {} prefixes of {} tokens and {} more for {}: expected a token of "
        "each, and no more prefixes than prompts",
        options.num_prompts, options.num_prefixes, options.repeated_prefix_len,
        options.repeated_suffix_len, options.repeated_output_len);
  }
  return CheckTokens(options, static_cast<double>(options.repeated_prefix_len) +
                                  static_cast<double>(options.repeated_suffix_len));
}

absl::Status Check(const WorkloadOptions& options) {
  if (options.num_prompts < 1) {
    return InvalidArgumentF("{} prompts, expected at least one", options.num_prompts);
  }
  if (options.id_begin < 0 || options.id_begin >= options.id_end ||
      options.id_end > std::numeric_limits<int32_t>::max()) {
    return InvalidArgumentF("token ids from {} to {}: the range is empty",
                            options.id_begin, options.id_end - 1);
  }
  return absl::OkStatus();
}

int64_t DrawLength(int64_t mean, double ratio, double uniform) {
  if (ratio == 0) {
    return mean;
  }
  const auto low =
      static_cast<int64_t>(std::floor(static_cast<double>(mean) * (1 - ratio)));
  const auto high =
      static_cast<int64_t>(std::ceil(static_cast<double>(mean) * (1 + ratio)));
  const auto drawn =
      low + static_cast<int64_t>(uniform * static_cast<double>(high - low + 1));
  return std::max<int64_t>(drawn, 1);
}

// Appends `count` tokens of that stream to the prompt, as ids or as words.
void Draw(const WorkloadOptions& options, uint64_t stream, int64_t count,
          PlannedRequest* request) {
  const CounterRng rng(options.seed, stream);
  const auto width = static_cast<double>(options.id_end - options.id_begin);
  for (int64_t i = 0; i < count; ++i) {
    const double uniform = rng.Uniform(static_cast<uint64_t>(i));
    if (options.as_text) {
      request->prompt_text += request->prompt_text.empty() ? "" : " ";
      request->prompt_text += kWords[static_cast<size_t>(uniform * kWords.size())];
    } else {
      request->prompt_ids.push_back(
          static_cast<int32_t>(options.id_begin + static_cast<int64_t>(uniform * width)));
    }
  }
}

std::vector<PlannedRequest> PlanRandom(const WorkloadOptions& options) {
  const CounterRng shape(options.seed, kShapeStream);
  PlannedRequest prefix;
  Draw(options, kFirstPrefixStream, options.prefix_len, &prefix);
  std::vector<PlannedRequest> requests(static_cast<size_t>(options.num_prompts), prefix);
  for (size_t i = 0; i < requests.size(); ++i) {
    const uint64_t draw = i * kDrawsPerRequest;
    const int64_t input_len =
        DrawLength(options.input_len, options.range_ratio, shape.Uniform(draw));
    requests[i].output_len =
        DrawLength(options.output_len, options.range_ratio, shape.Uniform(draw + 1));
    Draw(options, kFirstPromptStream + i, input_len, &requests[i]);
  }
  return requests;
}

// 0 to count - 1 in the order of the seed.
std::vector<size_t> Shuffled(size_t count, uint64_t seed) {
  const CounterRng rng(seed, kShapeStream);
  std::vector<size_t> order(count);
  std::iota(order.begin(), order.end(), size_t{0});
  for (size_t i = count; i > 1; --i) {
    const auto other = static_cast<size_t>(rng.Uniform(i) * static_cast<double>(i));
    std::swap(order[i - 1], order[other]);
  }
  return order;
}

std::vector<PlannedRequest> PlanPrefixRepetition(const WorkloadOptions& options) {
  const auto num_prefixes = static_cast<size_t>(options.num_prefixes);
  std::vector<PlannedRequest> prefixes(num_prefixes);
  for (size_t i = 0; i < num_prefixes; ++i) {
    prefixes[i].output_len = options.repeated_output_len;
    Draw(options, kFirstPrefixStream + i, options.repeated_prefix_len, &prefixes[i]);
  }
  std::vector<PlannedRequest> requests;
  for (const size_t i :
       Shuffled(static_cast<size_t>(options.num_prompts), options.seed)) {
    requests.push_back(prefixes[i % num_prefixes]);
    Draw(options, kFirstPromptStream + i, options.repeated_suffix_len, &requests.back());
  }
  return requests;
}

// In the order of the seed, from the start again when the file has too few.
absl::StatusOr<std::vector<PlannedRequest>> PlanFile(const WorkloadOptions& options) {
  if (options.dataset_path.empty()) {
    return InvalidArgumentF("the dataset is a file: expected its path");
  }
  const auto read =
      options.dataset == Dataset::kShareGpt ? &ReadShareGpt : &ReadCustomLines;
  TESSERA_ASSIGN_OR_RETURN(const std::vector<DatasetPrompt> prompts,
                           read(options.dataset_path, options.file_output_len));
  const std::vector<size_t> order = Shuffled(prompts.size(), options.seed);
  std::vector<PlannedRequest> requests(static_cast<size_t>(options.num_prompts));
  double bytes = 0;
  for (size_t i = 0; i < requests.size(); ++i) {
    const DatasetPrompt& prompt = prompts[order[i % order.size()]];
    bytes += static_cast<double>(prompt.text.size());
    if (bytes > kTokensMax) {
      return InvalidArgumentF("more than {} bytes of prompts", kTokensMax);
    }
    requests[i].prompt_text = prompt.text;
    requests[i].output_len = prompt.output_len;
  }
  return requests;
}

absl::StatusOr<std::vector<PlannedRequest>> PlanPrompts(const WorkloadOptions& options) {
  switch (options.dataset) {
    case Dataset::kRandom:
      TESSERA_RETURN_IF_ERROR(CheckRandom(options));
      return PlanRandom(options);
    case Dataset::kPrefixRepetition:
      TESSERA_RETURN_IF_ERROR(CheckPrefixRepetition(options));
      return PlanPrefixRepetition(options);
    case Dataset::kShareGpt:
    case Dataset::kCustom:
      return PlanFile(options);
  }
  return InvalidArgumentF("no such dataset");
}

}  // namespace

absl::StatusOr<std::vector<PlannedRequest>> PlanWorkload(const WorkloadOptions& options) {
  TESSERA_RETURN_IF_ERROR(Check(options));
  TESSERA_ASSIGN_OR_RETURN(
      const std::vector<absl::Duration> arrivals,
      PlanArrivals(options.arrivals, static_cast<size_t>(options.num_prompts),
                   options.seed));
  TESSERA_ASSIGN_OR_RETURN(std::vector<PlannedRequest> requests, PlanPrompts(options));
  for (size_t i = 0; i < requests.size(); ++i) {
    requests[i].start = arrivals[i];
  }
  return requests;
}

}  // namespace tessera::cli
