#include "coordinator/api/json_fields.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <new>
#include <utility>

#include "nlohmann/json.hpp"

#include "common/status.h"

namespace tessera::coordinator {
namespace {

using nlohmann::json;

// Counts open brackets outside strings. Text that is not JSON may be judged either way;
// the parser refuses it afterwards.
bool DepthExceeds(std::string_view text, int max_depth) {
  int depth = 0;
  bool in_string = false;
  for (size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (in_string) {
      if (c == '\\') {
        ++i;
      } else if (c == '"') {
        in_string = false;
      }
    } else if (c == '"') {
      in_string = true;
    } else if (c == '{' || c == '[') {
      if (++depth > max_depth) {
        return true;
      }
    } else if (c == '}' || c == ']') {
      --depth;
    }
  }
  return false;
}

int32_t SaturateToInt32(int64_t value) {
  return static_cast<int32_t>(std::clamp<int64_t>(
      value, std::numeric_limits<int32_t>::min(), std::numeric_limits<int32_t>::max()));
}

}  // namespace

absl::StatusOr<json> ParseJsonObject(std::string_view text, int max_depth) {
  if (DepthExceeds(text, max_depth)) {
    return InvalidArgumentF("the body is nested deeper than {} levels", max_depth);
  }
  try {
    json value = json::parse(text);
    if (!value.is_object()) {
      return absl::InvalidArgumentError("the body is not a JSON object");
    }
    return value;
  } catch (const json::parse_error& error) {
    return InvalidArgumentF("the body is not valid JSON, see byte {}", error.byte);
  } catch (const json::exception&) {
    return absl::InvalidArgumentError("the body holds a number that is out of range");
  } catch (const std::bad_alloc&) {
    return absl::ResourceExhaustedError("out of memory while reading the body");
  }
}

std::string DumpJson(const json& value) {
  return value.dump(-1, ' ', false, json::error_handler_t::replace);
}

std::optional<int64_t> JsonInteger(const json& value) {
  constexpr int64_t kMax = std::numeric_limits<int64_t>::max();
  if (value.is_number_unsigned()) {
    const uint64_t number = value.get<uint64_t>();
    return number > static_cast<uint64_t>(kMax) ? kMax : static_cast<int64_t>(number);
  }
  if (value.is_number_integer()) {
    return value.get<int64_t>();
  }
  if (!value.is_number_float()) {
    return std::nullopt;
  }
  const double number = value.get<double>();
  if (number != std::floor(number)) {
    return std::nullopt;
  }
  // 2^63 is exact as a double; from there on the cast would be undefined.
  constexpr double kTwo63 = 9223372036854775808.0;
  if (number >= kTwo63) {
    return kMax;
  }
  return number < -kTwo63 ? std::numeric_limits<int64_t>::min()
                          : static_cast<int64_t>(number);
}

bool ReadTokenIds(const json& array, std::vector<int32_t>* out) {
  out->clear();
  out->reserve(array.size());
  for (const json& element : array) {
    const std::optional<int64_t> id = JsonInteger(element);
    if (!id.has_value()) {
      return false;
    }
    out->push_back(SaturateToInt32(*id));
  }
  return true;
}

JsonFields::JsonFields(const json& object, FieldError* error, std::string prefix)
    : object_(object), error_(error), prefix_(std::move(prefix)) {}

const json* JsonFields::Find(std::string_view name) const {
  const auto found = object_.find(name);
  return found == object_.end() || found->is_null() ? nullptr : &*found;
}

bool JsonFields::Has(std::string_view name) const { return Find(name) != nullptr; }

void JsonFields::Fail(std::string_view name, std::string message, std::string_view code) {
  if (ok()) {
    *error_ = {absl::InvalidArgumentError(message), prefix_ + std::string(name),
               std::string(code)};
  }
}

void JsonFields::FailType(std::string_view name, std::string_view expected,
                          const json& value) {
  Fail(name, fmt::format("{}{} is of type {}, expected {}", prefix_, name,
                         value.type_name(), expected));
}

std::optional<bool> JsonFields::Bool(std::string_view name) {
  const json* value = Find(name);
  if (value == nullptr) {
    return std::nullopt;
  }
  if (!value->is_boolean()) {
    FailType(name, "boolean", *value);
    return std::nullopt;
  }
  return value->get<bool>();
}

std::optional<int64_t> JsonFields::Integer(std::string_view name) {
  const json* value = Find(name);
  if (value == nullptr) {
    return std::nullopt;
  }
  const std::optional<int64_t> number = JsonInteger(*value);
  if (!number.has_value()) {
    FailType(name, "a whole number", *value);
  }
  return number;
}

std::optional<double> JsonFields::Number(std::string_view name) {
  const json* value = Find(name);
  if (value == nullptr) {
    return std::nullopt;
  }
  if (!value->is_number()) {
    FailType(name, "number", *value);
    return std::nullopt;
  }
  return value->get<double>();
}

std::optional<std::string> JsonFields::String(std::string_view name) {
  const json* value = Find(name);
  if (value == nullptr) {
    return std::nullopt;
  }
  if (!value->is_string()) {
    FailType(name, "string", *value);
    return std::nullopt;
  }
  return value->get<std::string>();
}

const json* JsonFields::Array(std::string_view name) {
  const json* value = Find(name);
  if (value != nullptr && !value->is_array()) {
    FailType(name, "array", *value);
    return nullptr;
  }
  return value;
}

const json* JsonFields::Object(std::string_view name) {
  const json* value = Find(name);
  if (value != nullptr && !value->is_object()) {
    FailType(name, "object", *value);
    return nullptr;
  }
  return value;
}

std::optional<std::vector<int32_t>> JsonFields::TokenIds(std::string_view name,
                                                         size_t max_count) {
  const json* array = Array(name);
  if (array == nullptr) {
    return std::nullopt;
  }
  std::vector<int32_t> ids;
  if (array->size() > max_count) {
    Fail(name,
         fmt::format("{} token ids, expected at most {}", array->size(), max_count));
    return std::nullopt;
  }
  if (!ReadTokenIds(*array, &ids)) {
    Fail(name, fmt::format("{}{} must hold token ids only", prefix_, name));
    return std::nullopt;
  }
  return ids;
}

}  // namespace tessera::coordinator
