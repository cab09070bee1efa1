// Prompts out of a file: the two formats that load generators share.
//
// It stands under Workload. It has no tokenizer, so lengths that a file does not state
// are estimated from its bytes; what is reported comes from the server's usage.
#ifndef TESSERA_CLI_CLIENT_DATASET_FILE_H_
#define TESSERA_CLI_CLIENT_DATASET_FILE_H_

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"

namespace tessera::cli {

struct DatasetPrompt {
  std::string text;
  int64_t output_len = 0;
};

// Of a ShareGPT file: a JSON array of {"conversations": [{"from": …, "value": …}, …]}.
// The first turn is the prompt, and the second as long as the answer should be unless
// `output_len` says so. Conversations that are shorter than 4 or longer than 1024 tokens
// (2048 with the answer), by a guess of 4 bytes a token, are left out, as other tools do.
// kNotFound: no such file; kInvalidArgument: another format, larger than 2 GiB, or
// nothing in it that fits.
absl::StatusOr<std::vector<DatasetPrompt>> ReadShareGpt(
    const std::string& path, std::optional<int64_t> output_len);

// Of a file with {"prompt": "…", "output_tokens": n} a line; output_tokens may be left
// out where `output_len` is given. Errors as above, with the number of the line.
absl::StatusOr<std::vector<DatasetPrompt>> ReadCustomLines(
    const std::string& path, std::optional<int64_t> output_len);

}  // namespace tessera::cli

#endif  // TESSERA_CLI_CLIENT_DATASET_FILE_H_
