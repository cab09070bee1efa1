#include "common/option_table.h"

#include <algorithm>
#include <cstdlib>

#include "fmt/format.h"
#include "fmt/ranges.h"

#include "common/check.h"
#include "common/command_line.h"
#include "common/status.h"
#include "common/status_macros.h"
#include "common/yaml_options.h"

namespace tessera {
namespace {

constexpr char kConfig[] = "config";
constexpr char kIgnoredHeading[] = "Accepted without effect";

// The number of single-letter edits between two names.
size_t EditDistance(const std::string& a, const std::string& b) {
  std::vector<size_t> row(b.size() + 1);
  for (size_t j = 0; j <= b.size(); ++j) {
    row[j] = j;
  }
  for (size_t i = 1; i <= a.size(); ++i) {
    size_t diagonal = row[0];
    row[0] = i;
    for (size_t j = 1; j <= b.size(); ++j) {
      const size_t substituted = diagonal + (a[i - 1] == b[j - 1] ? 0 : 1);
      diagonal = row[j];
      row[j] = std::min({substituted, row[j] + 1, row[j - 1] + 1});
    }
  }
  return row[b.size()];
}

std::vector<std::string> SplitAtCommas(const std::string& text) {
  std::vector<std::string> parts;
  size_t start = 0;
  while (start <= text.size() && !text.empty()) {
    const size_t end = std::min(text.find(',', start), text.size());
    parts.push_back(text.substr(start, end - start));
    start = end + 1;
  }
  return parts;
}

const char* OriginName(OptionOrigin origin) {
  switch (origin) {
    case OptionOrigin::kDefault:
      return "default";
    case OptionOrigin::kYaml:
      return "yaml";
    case OptionOrigin::kEnvironment:
      return "environment";
    case OptionOrigin::kFlag:
      return "flag";
  }
  return "?";
}

}  // namespace

Environment ProcessEnvironment() {
  return [](const std::string& name) -> std::optional<std::string> {
    const char* value = std::getenv(name.c_str());
    return value == nullptr ? std::nullopt : std::optional<std::string>(value);
  };
}

Option::Option(std::string name, std::string help, std::string heading, Binding binding)
    : name_(std::move(name)),
      help_(std::move(help)),
      heading_(std::move(heading)),
      binding_(std::move(binding)) {}

Option& Option::Short(std::string letters) {
  short_ = std::move(letters);
  return *this;
}

Option& Option::Positional(std::string placeholder) {
  TESSERA_CHECK(!binding_.is_flag);
  positional_ = std::move(placeholder);
  return *this;
}

Option& Option::Secret() {
  secret_ = true;
  return *this;
}

Option& Option::Range(double min, double max) {
  TESSERA_CHECK(min <= max);
  min_ = min;
  max_ = max;
  return *this;
}

Option& Option::AtLeast(double min) {
  min_ = min;
  return *this;
}

Option& Option::OneOf(std::vector<std::string> choices) {
  choices_ = std::move(choices);
  return *this;
}

std::string Option::EnvironmentName() const {
  std::string result = "TESSERA_";
  for (const char c : name_) {
    result +=
        c == '-' ? '_' : (c >= 'a' && c <= 'z' ? static_cast<char>(c - 'a' + 'A') : c);
  }
  return result;
}

absl::Status Option::AssignOne(const std::string& text) {
  if (!choices_.empty() &&
      std::find(choices_.begin(), choices_.end(), text) == choices_.end()) {
    return InvalidArgumentF("'{}' is none of {}", text, fmt::join(choices_, ", "));
  }
  TESSERA_RETURN_IF_ERROR(binding_.set(text));
  const std::optional<double> number = binding_.number ? binding_.number() : std::nullopt;
  if (number.has_value() && max_.has_value() && (*number < *min_ || *number > *max_)) {
    return InvalidArgumentF("'{}' is not in {} to {}", text, *min_, *max_);
  }
  if (number.has_value() && min_.has_value() && *number < *min_) {
    return InvalidArgumentF("'{}' is less than {}", text, *min_);
  }
  return absl::OkStatus();
}

// `place` is how the user knows the source: the flag, the variable, or file and line.
absl::Status Option::Assign(const std::vector<std::string>& texts, OptionOrigin origin,
                            std::string place) {
  if (!refused_.empty()) {
    return absl::UnimplementedError(fmt::format("{}: {}", place, refused_));
  }
  if (texts.size() != 1 && !binding_.is_list) {
    return InvalidArgumentF("{}: {} values, expected one", place, texts.size());
  }
  if (binding_.is_list) {
    binding_.clear();
  }
  for (const std::string& text : texts) {
    const absl::Status status = AssignOne(text);
    if (!status.ok()) {
      return WithContext(
          secret_ ? absl::InvalidArgumentError("not a valid value") : status, place);
    }
  }
  origin_ = origin;
  place_ = std::move(place);
  return absl::OkStatus();
}

OptionTable::OptionTable(std::string command, std::string summary)
    : command_(std::move(command)), summary_(std::move(summary)) {
  Add(kConfig, &config_path_, "YAML file of options; its keys are the long flags");
}

Option* OptionTable::FindMutable(const std::string& name) {
  for (const std::unique_ptr<Option>& option : options_) {
    if (option->name_ == name) {
      return option.get();
    }
  }
  return nullptr;
}

const Option* OptionTable::Find(const std::string& name) const {
  return const_cast<OptionTable*>(this)->FindMutable(name);
}

Option& OptionTable::AddBound(const std::string& name, const std::string& help,
                              Option::Binding binding) {
  TESSERA_CHECK(!name.empty() && name[0] != '-' && Find(name) == nullptr);
  options_.emplace_back(new Option(name, help, heading_, std::move(binding)));
  return *options_.back();
}

Option& OptionTable::Add(const std::string& name, std::vector<std::string>* field,
                         const std::string& help) {
  Option::Binding binding;
  binding.type_name = "TEXT ...";
  binding.is_list = true;
  binding.set = [field](const std::string& text) {
    field->push_back(text);
    return absl::OkStatus();
  };
  binding.clear = [field] { field->clear(); };
  binding.show = [field] { return *field; };
  return AddBound(name, help, std::move(binding));
}

void OptionTable::Ignore(const std::string& name, bool takes_value,
                         const std::string& reason) {
  Option::Binding binding;
  binding.type_name = takes_value ? "TEXT" : "";
  binding.is_flag = !takes_value;
  binding.set = [](const std::string&) { return absl::OkStatus(); };
  binding.show = [] { return std::vector<std::string>(); };
  Option& option = AddBound(name, reason, std::move(binding));
  option.ignored_ = reason;
  option.heading_ = kIgnoredHeading;
}

void OptionTable::Refuse(const std::string& name, const std::string& reason) {
  Option::Binding binding;
  binding.show = [] { return std::vector<std::string>(); };
  Option& option = AddBound(name, reason, std::move(binding));
  option.refused_ = reason;
  option.heading_ = "";  // Not in the help.
}

std::string OptionTable::Suggestion(const std::string& prefix,
                                    const std::string& typed) const {
  const Option* best = nullptr;
  size_t best_distance = 4;  // Farther than three letters is another word.
  for (const std::unique_ptr<Option>& option : options_) {
    const size_t distance = EditDistance(typed, option->name_);
    if (distance < best_distance) {
      best_distance = distance;
      best = option.get();
    }
  }
  return best == nullptr ? "" : fmt::format(", did you mean {}{}?", prefix, best->name_);
}

absl::Status OptionTable::ApplyYaml(const std::string& path) {
  TESSERA_ASSIGN_OR_RETURN(const std::vector<YamlOption> entries, ReadYamlOptions(path));
  for (const YamlOption& entry : entries) {
    const std::string place = fmt::format("{} line {}: {}", path, entry.line, entry.key);
    Option* option = entry.key == kConfig ? nullptr : FindMutable(entry.key);
    if (option == nullptr) {
      return InvalidArgumentF("{} is not an option of {}{}", place, command_,
                              Suggestion("", entry.key));
    }
    TESSERA_RETURN_IF_ERROR(option->Assign(entry.values, OptionOrigin::kYaml, place));
  }
  return absl::OkStatus();
}

absl::Status OptionTable::ApplyEnvironment(const Environment& environment) {
  for (const std::unique_ptr<Option>& option : options_) {
    const std::string name = option->EnvironmentName();
    const std::optional<std::string> text = environment(name);
    if (!text.has_value()) {
      continue;
    }
    std::vector<std::string> texts = {*text};
    if (option->binding_.is_list) {
      texts = SplitAtCommas(*text);
    }
    TESSERA_RETURN_IF_ERROR(option->Assign(texts, OptionOrigin::kEnvironment, name));
  }
  return absl::OkStatus();
}

absl::Status OptionTable::ApplyFlags(const CommandLine& line) {
  for (const std::unique_ptr<Option>& option : options_) {
    const auto it = line.texts.find(option->name_);
    if (it != line.texts.end()) {
      TESSERA_RETURN_IF_ERROR(
          option->Assign(it->second, OptionOrigin::kFlag, "--" + option->name_));
    }
  }
  return absl::OkStatus();
}

std::vector<CommandLineRow> OptionTable::Rows() const {
  std::vector<CommandLineRow> rows;
  for (const std::unique_ptr<Option>& option : options_) {
    CommandLineRow row;
    row.name = option->name_;
    row.short_letters = option->short_;
    row.positional = option->positional_;
    row.type_name = option->binding_.type_name;
    row.help = option->help_;
    row.heading = option->heading_;
    row.is_flag = option->binding_.is_flag;
    row.is_list = option->binding_.is_list;
    row.value_optional = !option->refused_.empty();
    if (!option->choices_.empty()) {
      row.type_name = fmt::format("{{{}}}", fmt::join(option->choices_, ","));
    }
    const std::vector<std::string> shown = option->binding_.show();
    if (!option->secret_ && !shown.empty() && !shown.front().empty()) {
      row.help += fmt::format(" (default {})", fmt::join(shown, " "));
    }
    rows.push_back(std::move(row));
  }
  return rows;
}

absl::Status OptionTable::CheckRest(const std::vector<std::string>& rest) const {
  if (rest.empty()) {
    return absl::OkStatus();
  }
  // An unknown flag explains the stray value behind it.
  const auto flag =
      std::find_if(rest.begin(), rest.end(), [](const std::string& argument) {
        return argument.size() > 1 && argument[0] == '-';
      });
  if (flag == rest.end()) {
    return InvalidArgumentF("'{}' is one argument too many for {}", rest.front(),
                            command_);
  }
  const std::string typed = flag->substr(0, flag->find('='));
  const std::string name =
      typed.substr(std::min(typed.find_first_not_of('-'), typed.size()));
  return InvalidArgumentF("{} is not an option of {}{}", typed, command_,
                          Suggestion("--", name));
}

absl::StatusOr<ParsedOptions> OptionTable::Parse(std::span<const std::string> arguments,
                                                 const Environment& environment) {
  TESSERA_ASSIGN_OR_RETURN(const CommandLine line,
                           ReadCommandLine(command_, summary_, Rows(), arguments));
  ParsedOptions parsed;
  if (line.help.has_value()) {
    parsed.print_and_exit = line.help;
    return parsed;
  }
  TESSERA_RETURN_IF_ERROR(CheckRest(line.rest));
  // The path of the file comes from the stronger sources alone; both are applied again
  // below.
  if (const auto it = line.texts.find(kConfig); it != line.texts.end()) {
    config_path_ = it->second.back();
  } else if (const auto path = environment("TESSERA_CONFIG"); path.has_value()) {
    config_path_ = *path;
  }
  if (!config_path_.empty()) {
    TESSERA_RETURN_IF_ERROR(ApplyYaml(config_path_));
  }
  TESSERA_RETURN_IF_ERROR(ApplyEnvironment(environment));
  TESSERA_RETURN_IF_ERROR(ApplyFlags(line));
  for (const std::unique_ptr<Option>& option : options_) {
    if (option->secret_ && option->origin_ == OptionOrigin::kFlag) {
      parsed.notices.push_back(
          fmt::format("--{} is visible in the process list: prefer {}", option->name_,
                      option->EnvironmentName()));
    }
    if (!option->ignored_.empty() && option->origin_ != OptionOrigin::kDefault) {
      parsed.notices.push_back(
          fmt::format("{} has no effect: {}", option->place_, option->ignored_));
    }
  }
  if (line.print_config) {
    parsed.print_and_exit = PrintConfig();
  }
  return parsed;
}

std::string OptionTable::PrintConfig() const {
  std::string text;
  for (const std::unique_ptr<Option>& option : options_) {
    if (!option->refused_.empty() || !option->ignored_.empty()) {
      continue;
    }
    std::vector<std::string> shown = option->binding_.show();
    for (std::string& value : shown) {
      value = option->secret_ && !value.empty() ? "***" : value;
    }
    const bool is_list = option->binding_.is_list;
    const std::string value = is_list         ? YamlList(shown)
                              : shown.empty() ? ""
                                              : YamlScalar(shown.front());
    // What a file cannot say stands as a comment: an unset value, and the file's own
    // name.
    const bool comment = option->name_ == kConfig || (shown.empty() && !is_list);
    text += fmt::format("{}{}: {}  # {}", comment ? "# " : "", option->name_, value,
                        OriginName(option->origin_));
    text += option->place_.empty() ? "\n" : fmt::format(", {}\n", option->place_);
  }
  return text;
}

}  // namespace tessera
