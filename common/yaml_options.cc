#include "common/yaml_options.h"

#include <set>
#include <utility>

#include "yaml-cpp/yaml.h"

#include "common/small_file.h"
#include "common/status.h"
#include "common/status_macros.h"

namespace tessera {
namespace {

absl::StatusOr<YamlOption> ReadEntry(const YAML::Node& key, const YAML::Node& value) {
  YamlOption option;
  option.line = key.Mark().line + 1;
  if (!key.IsScalar()) {
    return InvalidArgumentF("line {}: a key is not a word", option.line);
  }
  option.key = key.Scalar();
  if (value.IsScalar()) {
    option.values.push_back(value.Scalar());
    return option;
  }
  if (!value.IsSequence()) {
    return InvalidArgumentF("line {}: {} has {}, expected a value or a list of values",
                            option.line, option.key,
                            value.IsMap() ? "nested keys" : "no value");
  }
  option.is_list = true;
  for (const YAML::Node& item : value) {
    if (!item.IsScalar()) {
      return InvalidArgumentF("line {}: {} has a nested list, expected a list of values",
                              option.line, option.key);
    }
    option.values.push_back(item.Scalar());
  }
  return option;
}

absl::StatusOr<std::vector<YamlOption>> ReadEntries(const std::string& text) {
  std::vector<YamlOption> options;
  std::set<std::string> seen;
  try {
    const YAML::Node root = YAML::Load(text);
    if (root.IsNull()) {
      return options;
    }
    if (!root.IsMap()) {
      return absl::InvalidArgumentError("not a map of option names to values");
    }
    for (const auto& entry : root) {
      TESSERA_ASSIGN_OR_RETURN(YamlOption option, ReadEntry(entry.first, entry.second));
      if (!seen.insert(option.key).second) {
        return InvalidArgumentF("line {}: {} is given twice", option.line, option.key);
      }
      options.push_back(std::move(option));
    }
  } catch (const YAML::Exception& error) {
    return InvalidArgumentF("line {}: not YAML: {}", error.mark.line + 1, error.msg);
  }
  return options;
}

}  // namespace

absl::StatusOr<std::vector<YamlOption>> ReadYamlOptions(const std::string& path) {
  TESSERA_ASSIGN_OR_RETURN(const std::string text,
                           ReadSmallFile(path, "a file of options"));
  absl::StatusOr<std::vector<YamlOption>> options = ReadEntries(text);
  if (!options.ok()) {
    return WithContext(options.status(), path);
  }
  return options;
}

std::string YamlScalar(const std::string& text) {
  YAML::Emitter emitter;
  emitter << text;
  // The emitter leaves words such as true, null and 3 bare, which a reader of options
  // takes as the same text, and the empty text as "".
  return emitter.c_str();
}

std::string YamlList(const std::vector<std::string>& texts) {
  YAML::Emitter emitter;
  emitter << YAML::Flow << texts;
  return emitter.c_str();
}

}  // namespace tessera
