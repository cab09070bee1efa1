// Strict JSON for the files of a checkpoint: bounded in size and depth, without duplicate
// keys, and with errors as values. For config.json and its like; requests have their own
// parser.
#ifndef TESSERA_MODEL_CONFIG_STRICT_JSON_H_
#define TESSERA_MODEL_CONFIG_STRICT_JSON_H_

#include <cstddef>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "nlohmann/json.hpp"

namespace tessera::model {

struct StrictJsonLimits {
  size_t bytes = size_t{4} << 20;
  size_t depth = 32;
};

// kInvalidArgument: longer or deeper than the limits, not JSON (with the byte), or a key
// that occurs twice in one object (with the key).
absl::StatusOr<nlohmann::json> ParseStrictJson(std::string_view text,
                                               const StrictJsonLimits& limits = {});

// Reads a whole regular file of at most `max_bytes`. kNotFound: no such file.
// kInvalidArgument: not a regular file, unreadable, or longer.
absl::StatusOr<std::string> ReadSmallFile(const std::string& path, size_t max_bytes);

}  // namespace tessera::model

#endif  // TESSERA_MODEL_CONFIG_STRICT_JSON_H_
