#include "model/config/json_fields.h"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <limits>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "fmt/format.h"
#include "fmt/ranges.h"
#include "nlohmann/json.hpp"

#include "common/status.h"

namespace tessera::model {
namespace {

// The value as it goes into a message: bounded, and valid UTF-8 whatever was in the file.
std::string Show(const nlohmann::json& value) {
  constexpr size_t kMaxBytes = 60;
  std::string text = value.dump(-1, ' ', true, nlohmann::json::error_handler_t::replace);
  if (text.size() > kMaxBytes) {
    text.resize(kMaxBytes);
    text += "...";
  }
  return text;
}

}  // namespace

JsonFields::JsonFields(const nlohmann::json& json, std::string prefix)
    : json_(json), prefix_(std::move(prefix)) {
  if (!json_.is_object()) {
    const std::string_view name =
        std::string_view(prefix_).substr(0, prefix_.empty() ? 0 : prefix_.size() - 1);
    status_ = InvalidArgumentF("{}: found {}, expected an object",
                               name.empty() ? "the document" : name, Show(json_));
  }
}

const nlohmann::json* JsonFields::Find(std::string_view name) const {
  if (!json_.is_object()) {
    return nullptr;
  }
  const auto found = json_.find(name);
  return found == json_.end() || found->is_null() ? nullptr : &*found;
}

const nlohmann::json* JsonFields::Require(std::string_view name, bool optional) {
  const nlohmann::json* value = Find(name);
  if (value == nullptr && !optional) {
    Fault(name, "is missing");
  }
  return value;
}

void JsonFields::Fault(std::string_view name, std::string_view what) {
  if (status_.ok()) {
    status_ = InvalidArgumentF("{}{} {}", prefix_, name, what);
  }
}

std::optional<int64_t> JsonFields::ReadInt(std::string_view name,
                                           const nlohmann::json& value, IntRange range) {
  // The library keeps positive numbers as unsigned; those over 2^63 are out of any range.
  const bool in_range =
      value.is_number_integer() &&
      (!value.is_number_unsigned() ||
       value.get<uint64_t>() <=
           static_cast<uint64_t>(std::numeric_limits<int64_t>::max())) &&
      value.get<int64_t>() >= range.min && value.get<int64_t>() <= range.max;
  if (!in_range) {
    Fault(name, fmt::format("is {}, expected an integer from {} to {}", Show(value),
                            range.min, range.max));
    return std::nullopt;
  }
  return value.get<int64_t>();
}

int64_t JsonFields::Int(std::string_view name, IntRange range,
                        std::optional<int64_t> fallback) {
  const int64_t otherwise = fallback.value_or(range.min);
  const nlohmann::json* value = Require(name, fallback.has_value());
  return value == nullptr ? otherwise : ReadInt(name, *value, range).value_or(otherwise);
}

double JsonFields::Number(std::string_view name, NumberRange range,
                          std::optional<double> fallback) {
  const double otherwise = fallback.value_or(range.min);
  const nlohmann::json* value = Require(name, fallback.has_value());
  if (value == nullptr) {
    return otherwise;
  }
  // A NaN cannot be written in JSON, and an overflow to infinity is out of range.
  if (!value->is_number() || !(value->get<double>() >= range.min) ||
      !(value->get<double>() <= range.max)) {
    Fault(name, fmt::format("is {}, expected a number from {} to {}", Show(*value),
                            range.min, range.max));
    return otherwise;
  }
  return value->get<double>();
}

bool JsonFields::Bool(std::string_view name, std::optional<bool> fallback) {
  const nlohmann::json* value = Require(name, fallback.has_value());
  if (value != nullptr && value->is_boolean()) {
    return value->get<bool>();
  }
  if (value != nullptr) {
    Fault(name, fmt::format("is {}, expected true or false", Show(*value)));
  }
  return fallback.value_or(false);
}

size_t JsonFields::Choice(std::string_view name,
                          std::initializer_list<std::string_view> allowed,
                          std::optional<size_t> fallback) {
  const nlohmann::json* value = Require(name, fallback.has_value());
  if (value == nullptr) {
    return fallback.value_or(0);
  }
  const auto found = value->is_string() ? std::find(allowed.begin(), allowed.end(),
                                                    value->get_ref<const std::string&>())
                                        : allowed.end();
  if (found == allowed.end()) {
    Fault(name, fmt::format("is {}, expected \"{}\"", Show(*value),
                            fmt::join(allowed, "\" or \"")));
    return fallback.value_or(0);
  }
  return static_cast<size_t>(found - allowed.begin());
}

std::vector<int64_t> JsonFields::Ints(std::string_view name, const ListLimits& limits) {
  const nlohmann::json* value = Find(name);
  if (value == nullptr) {
    return {};
  }
  if (!value->is_array() && limits.or_single) {
    const std::optional<int64_t> single = ReadInt(name, *value, limits.values);
    return single.has_value() ? std::vector<int64_t>{*single} : std::vector<int64_t>{};
  }
  if (!value->is_array() || value->size() > limits.max_length) {
    Fault(name, fmt::format("is {}, expected a list of at most {} integers", Show(*value),
                            limits.max_length));
    return {};
  }
  std::vector<int64_t> list;
  for (const nlohmann::json& item : *value) {
    list.push_back(ReadInt(name, item, limits.values).value_or(limits.values.min));
  }
  return list;
}

void JsonFields::Refuse(std::string_view name, std::string_view why) {
  const nlohmann::json* value = Find(name);
  if (value == nullptr || (value->is_boolean() && !value->get<bool>()) ||
      (value->is_number() && value->get<double>() == 0)) {
    return;
  }
  Fault(name, fmt::format("is {}, expected it to be absent: {}", Show(*value), why));
}

void JsonFields::RefuseOthers(std::initializer_list<std::string_view> known) {
  if (!json_.is_object()) {
    return;
  }
  for (const auto& [name, value] : json_.items()) {
    if (std::find(known.begin(), known.end(), name) == known.end() && !value.is_null()) {
      Fault(std::string_view(name).substr(0, 100), "is not a known field");
    }
  }
}

}  // namespace tessera::model
