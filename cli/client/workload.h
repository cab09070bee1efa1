// The work of `tessera bench serve`: which prompts are sent, and when.
//
// Functions of the options and the seed alone, but for the file of a dataset, so that two
// runs send the same bytes at the same offsets. There is no tokenizer here: prompts are
// token ids, or words that nearly every tokenizer takes as one token each.
#ifndef TESSERA_CLI_CLIENT_WORKLOAD_H_
#define TESSERA_CLI_CLIENT_WORKLOAD_H_

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "cli/client/arrivals.h"

namespace tessera::cli {

enum class Dataset {
  kRandom,            // Prompts of random tokens, in front of each the same prefix.
  kPrefixRepetition,  // Several prefixes, each shared by as many prompts.
  kShareGpt,          // First turns of a file of conversations.
  kCustom,            // A file with a JSON object a line.
};

struct WorkloadOptions {
  Dataset dataset = Dataset::kRandom;
  int64_t num_prompts = 1000;
  // Words instead of token ids: for chats, and servers that take no ids.
  bool as_text = false;
  uint64_t seed = 0;
  ArrivalOptions arrivals = {};

  // Random.
  int64_t input_len = 1024;
  int64_t output_len = 128;
  // Lengths are uniform in [len x (1 - ratio), len x (1 + ratio)].
  double range_ratio = 0;
  // Token ids are drawn from [id_begin, id_end): by default from ids that are plain bytes
  // or short words in every tokenizer of the family, and no special tokens.
  int64_t id_begin = 10;
  int64_t id_end = 250;
  int64_t prefix_len = 0;  // Tokens that all prompts share, in front of input_len.

  // Prefix repetition: of as many prefixes, shuffled.
  int64_t repeated_prefix_len = 256;
  int64_t repeated_suffix_len = 256;
  int64_t num_prefixes = 10;
  int64_t repeated_output_len = 128;

  // Files.
  std::string dataset_path = {};
  // Instead of the lengths in the file.
  std::optional<int64_t> file_output_len = {};
};

struct PlannedRequest {
  std::vector<int32_t> prompt_ids;  // Empty where there is a text.
  int64_t output_len = 0;
  absl::Duration start;  // After the start of the run; never decreases.
  std::string prompt_text = {};
};

// kInvalidArgument: no prompts, empty prompts, an empty range of ids, a ratio outside
// [0, 1), more than 2^28 tokens in all, or the refusals of PlanArrivals and ReadDataset;
// kNotFound: no such file.
absl::StatusOr<std::vector<PlannedRequest>> PlanWorkload(const WorkloadOptions& options);

}  // namespace tessera::cli

#endif  // TESSERA_CLI_CLIENT_WORKLOAD_H_
