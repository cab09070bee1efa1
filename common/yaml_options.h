// Reads the one YAML file of options: a flat map from option names to values, nothing
// nested.
//
// yaml-cpp accepts a key twice and keeps both; here that is an error. Which keys exist is
// the business of common/option_table.h. Holds no state and lets no exception out.
#ifndef TESSERA_COMMON_YAML_OPTIONS_H_
#define TESSERA_COMMON_YAML_OPTIONS_H_

#include <string>
#include <vector>

#include "absl/status/statusor.h"

namespace tessera {

// One `key: value` line.
struct YamlOption {
  std::string key;
  std::vector<std::string>
      values;  // A scalar is one value; a list of scalars is several.
  bool is_list = false;
  int line = 0;  // 1-based.
};

// The entries in the order of the file. An empty file has none. kNotFound: it cannot be
// opened; kInvalidArgument: it is over 1 MiB, is not YAML, is not a flat map, or has a
// key twice.
absl::StatusOr<std::vector<YamlOption>> ReadYamlOptions(const std::string& path);

// `text` as a YAML scalar, quoted where it must be.
std::string YamlScalar(const std::string& text);

// `texts` as a YAML list on one line.
std::string YamlList(const std::vector<std::string>& texts);

}  // namespace tessera

#endif  // TESSERA_COMMON_YAML_OPTIONS_H_
