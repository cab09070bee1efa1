#include "coordinator/grammar/schema_rules.h"

#include <algorithm>
#include <cstdint>
#include <map>
#include <set>
#include <string>
#include <string_view>

#include "nlohmann/json.hpp"

#include "common/status.h"
#include "common/status_macros.h"

namespace tessera::coordinator {
namespace {

using Json = nlohmann::ordered_json;

// They say something about a value and forbid none.
constexpr std::string_view kAnnotations[] = {
    "$schema",  "$id",     "$comment", "title",      "description", "default",
    "examples", "example", "readOnly", "writeOnly",  "deprecated",  "$defs",
    "nullable", "strict",  "format",   "definitions"};

// What each type's values are held to. Other types pass such a keyword, so that it needs
// the type beside it.
const std::map<std::string_view, std::set<std::string_view>>& KeywordsOfTypes() {
  static const auto* const keywords =
      new std::map<std::string_view, std::set<std::string_view>>{
          {"object",
           {"properties", "required", "additionalProperties", "minProperties",
            "maxProperties"}},
          {"array", {"items", "prefixItems", "minItems", "maxItems"}},
          {"string", {"minLength", "maxLength", "pattern"}},
          {"integer", {"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"}},
          {"number", {"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"}},
          {"boolean", {}},
          {"null", {}}};
  return *keywords;
}

std::string_view TypeOf(const Json& value) {
  switch (value.type()) {
    case Json::value_t::object:
      return "object";
    case Json::value_t::array:
      return "array";
    case Json::value_t::string:
      return "string";
    case Json::value_t::boolean:
      return "boolean";
    case Json::value_t::number_integer:
    case Json::value_t::number_unsigned:
      return "integer";
    case Json::value_t::number_float:
      return "number";
    default:
      return "null";
  }
}

// A pattern of a JSON string matches its value, and is generated as its text: quotes,
// backslashes and control characters, which JSON escapes, cannot be part of it, nor can
// what only looks ahead. Of the negated classes the library makes bytes that are no
// character, too.
bool IsPlainPattern(std::string_view pattern) {
  constexpr std::string_view kEscapable = "dws.^$|()[]{}*+?/-";
  bool in_class = false;
  bool is_negated = false;
  for (size_t i = 0; i < pattern.size(); ++i) {
    const auto c = static_cast<unsigned char>(pattern[i]);
    if (c < 0x20 || c == '"') {
      return false;
    }
    if (c == '\\') {
      if (++i == pattern.size() ||
          kEscapable.find(pattern[i]) == std::string_view::npos) {
        return false;
      }
    } else if (c == '[' && !in_class) {
      in_class = true;
      is_negated = i + 1 < pattern.size() && pattern[i + 1] == '^';
    } else if (c == ']') {
      in_class = false;
    } else if (c == '(' && pattern.substr(i, 2) == "(?" &&
               pattern.substr(i, 3) != "(?:") {
      return false;
    } else if (in_class && !is_negated && i + 2 < pattern.size() &&
               pattern[i + 1] == '-' && pattern[i + 2] != ']') {
      const auto last = static_cast<unsigned char>(pattern[i + 2]);
      if ((c <= '"' && last >= '"') || (c <= '\\' && last >= '\\')) {
        return false;
      }
    }
  }
  return true;
}

class SchemaChecker {
 public:
  SchemaChecker(const Json& root, const GrammarLimits& limits)
      : root_(root), limits_(limits), repeats_left_(limits.max_repeat_product) {}

  absl::Status Check(const Json& schema, const std::string& where, int32_t depth);

 private:
  absl::Status CheckCombined(const Json& schema, const std::string& where, int32_t depth);
  absl::Status CheckValues(const Json& schema, const std::string& where);
  absl::Status CheckReference(const Json& reference, const std::string& where);
  absl::Status CheckTyped(const Json& schema, const std::string& where, int32_t depth);
  absl::Status CheckCount(const Json& value, std::string_view name,
                          const std::string& where);
  absl::Status CheckMembers(const Json& schema, const std::string& where, int32_t depth);
  // What takes time to compile is bounded for the schema as a whole.
  absl::Status Spend(int64_t repeats, const std::string& where);
  // Only annotations and `allowed` stand in `schema`.
  absl::Status CheckOthers(const Json& schema, const std::set<std::string_view>& allowed,
                           const std::string& where);

  const Json& root_;
  const GrammarLimits& limits_;
  int64_t repeats_left_;
};

absl::Status SchemaChecker::CheckOthers(const Json& schema,
                                        const std::set<std::string_view>& allowed,
                                        const std::string& where) {
  for (const auto& [key, value] : schema.items()) {
    if (!allowed.contains(key) &&
        std::find(std::begin(kAnnotations), std::end(kAnnotations), key) ==
            std::end(kAnnotations)) {
      return InvalidArgumentF("{}: the keyword {} cannot be enforced here", where, key);
    }
  }
  return absl::OkStatus();
}

absl::Status SchemaChecker::Check(const Json& schema, const std::string& where,
                                  int32_t depth) {
  if (depth > limits_.max_depth) {
    return InvalidArgumentF("{}: nested deeper than {}", where, limits_.max_depth);
  }
  if (schema.is_boolean() && schema.get<bool>()) {
    return absl::OkStatus();
  }
  if (!schema.is_object()) {
    return InvalidArgumentF("{}: expected a schema that some value can meet", where);
  }
  for (const char* name : {"$defs", "definitions"}) {
    const auto found = schema.find(name);
    if (found == schema.end()) {
      continue;
    }
    if (!found->is_object()) {
      return InvalidArgumentF("{}.{}: expected an object", where, name);
    }
    for (const auto& [key, value] : found->items()) {
      TESSERA_RETURN_IF_ERROR(
          Check(value, fmt::format("{}.{}.{}", where, name, key), depth + 1));
    }
  }
  return CheckCombined(schema, where, depth);
}

absl::Status SchemaChecker::CheckCombined(const Json& schema, const std::string& where,
                                          int32_t depth) {
  if (const auto reference = schema.find("$ref"); reference != schema.end()) {
    TESSERA_RETURN_IF_ERROR(CheckOthers(schema, {"$ref"}, where));
    return CheckReference(*reference, where);
  }
  if (schema.contains("const") || schema.contains("enum")) {
    return CheckValues(schema, where);
  }
  if (const auto any = schema.find("anyOf"); any != schema.end()) {
    TESSERA_RETURN_IF_ERROR(CheckOthers(schema, {"anyOf"}, where));
    if (!any->is_array() || any->empty() || std::ssize(*any) > limits_.max_alternatives) {
      return InvalidArgumentF("{}.anyOf: expected a list of 1 to {} schemas", where,
                              limits_.max_alternatives);
    }
    for (size_t i = 0; i < any->size(); ++i) {
      TESSERA_RETURN_IF_ERROR(
          Check((*any)[i], fmt::format("{}.anyOf[{}]", where, i), depth + 1));
    }
    return absl::OkStatus();
  }
  return CheckTyped(schema, where, depth);
}

absl::Status SchemaChecker::CheckValues(const Json& schema, const std::string& where) {
  const bool is_enum = schema.contains("enum");
  const char* const name = is_enum ? "enum" : "const";
  TESSERA_RETURN_IF_ERROR(CheckOthers(schema, {name, "type"}, where));
  const Json values = is_enum ? schema["enum"] : Json::array({schema["const"]});
  if (!values.is_array() || values.empty() ||
      std::ssize(values) > limits_.max_alternatives) {
    return InvalidArgumentF("{}.enum: expected a list of 1 to {} values", where,
                            limits_.max_alternatives);
  }
  const auto type = schema.find("type");
  if (type == schema.end()) {
    return absl::OkStatus();
  }
  const Json types = type->is_array() ? *type : Json::array({*type});
  for (const Json& value : values) {
    const std::string_view seen = TypeOf(value);
    const bool fits = std::any_of(types.begin(), types.end(), [&](const Json& entry) {
      return entry == seen || (entry == "number" && seen == "integer");
    });
    if (!fits) {
      return InvalidArgumentF("{}.{}: a value of type {} beside type {}", where, name,
                              seen, type->dump());
    }
  }
  return absl::OkStatus();
}

absl::Status SchemaChecker::CheckReference(const Json& reference,
                                           const std::string& where) {
  const std::string text = reference.is_string() ? reference.get<std::string>() : "";
  if (text == "#") {
    return absl::OkStatus();
  }
  const bool plain = text.starts_with("#/") && text.find_first_of("~%") == text.npos;
  if (!plain) {
    return InvalidArgumentF("{}.$ref: {} is no pointer into this schema without escapes",
                            where, reference.dump());
  }
  // Through objects alone, to what was or will be checked where it stands.
  const Json* at = &root_;
  size_t begin = 2;
  while (begin <= text.size()) {
    const size_t end = std::min(text.find('/', begin), text.size());
    const auto found =
        at->is_object() ? at->find(text.substr(begin, end - begin)) : at->end();
    if (!at->is_object() || found == at->end()) {
      return InvalidArgumentF("{}.$ref: {} is not in this schema", where, text);
    }
    at = &*found;
    begin = end + 1;
  }
  const bool is_definition =
      text.starts_with("#/$defs/") || text.starts_with("#/definitions/");
  return is_definition
             ? absl::OkStatus()
             : InvalidArgumentF("{}.$ref: {}, expected one into $defs", where, text);
}

absl::Status SchemaChecker::CheckTyped(const Json& schema, const std::string& where,
                                       int32_t depth) {
  const auto type = schema.find("type");
  if (type == schema.end()) {
    // Without a type a keyword binds only values of its type.
    return CheckOthers(schema, {}, where);
  }
  const Json types = type->is_array() ? *type : Json::array({*type});
  if (types.empty()) {
    return InvalidArgumentF("{}.type: expected at least one type", where);
  }
  std::set<std::string_view> allowed = {"type"};
  for (const Json& entry : types) {
    const auto found = entry.is_string()
                           ? KeywordsOfTypes().find(entry.get_ref<const std::string&>())
                           : KeywordsOfTypes().end();
    if (found == KeywordsOfTypes().end()) {
      return InvalidArgumentF("{}.type: {} is no type", where, entry.dump());
    }
    allowed.insert(found->second.begin(), found->second.end());
  }
  TESSERA_RETURN_IF_ERROR(CheckOthers(schema, allowed, where));
  for (const char* name : {"minLength", "maxLength", "minItems", "maxItems",
                           "minProperties", "maxProperties"}) {
    if (const auto found = schema.find(name); found != schema.end()) {
      TESSERA_RETURN_IF_ERROR(CheckCount(*found, name, where));
    }
  }
  if (const auto pattern = schema.find("pattern"); pattern != schema.end()) {
    if (!pattern->is_string()) {
      return InvalidArgumentF("{}.pattern: expected a string", where);
    }
    if (schema.contains("minLength") || schema.contains("maxLength")) {
      return InvalidArgumentF("{}: a pattern and a length cannot be enforced together",
                              where);
    }
    if (!IsPlainPattern(pattern->get_ref<const std::string&>())) {
      return InvalidArgumentF(
          "{}.pattern: quotes, backslashes, control characters, escapes of other kinds "
          "and "
          "lookaround cannot be enforced",
          where);
    }
    const auto product = CheckPattern(pattern->get_ref<const std::string&>(),
                                      PatternSyntax::kRegex, limits_);
    TESSERA_RETURN_IF_ERROR(WithContext(product.status(), where));
    TESSERA_RETURN_IF_ERROR(Spend(*product, where));
  }
  return CheckMembers(schema, where, depth);
}

absl::Status SchemaChecker::CheckCount(const Json& value, std::string_view name,
                                       const std::string& where) {
  if (!value.is_number_integer() || value.get<int64_t>() < 0 ||
      value.get<int64_t>() > limits_.max_repeats) {
    return InvalidArgumentF("{}.{} is {}, expected 0 to {}", where, name, value.dump(),
                            limits_.max_repeats);
  }
  return Spend(value.get<int64_t>(), where);
}

absl::Status SchemaChecker::Spend(int64_t repeats, const std::string& where) {
  repeats_left_ -= repeats;
  if (repeats_left_ < 0) {
    return InvalidArgumentF("{}: the repetitions of the whole schema exceed {}", where,
                            limits_.max_repeat_product);
  }
  return absl::OkStatus();
}

absl::Status SchemaChecker::CheckMembers(const Json& schema, const std::string& where,
                                         int32_t depth) {
  for (const char* name : {"items", "additionalProperties"}) {
    const auto found = schema.find(name);
    // `false` forbids members, and is no schema of one.
    if (found != schema.end() && !found->is_boolean()) {
      TESSERA_RETURN_IF_ERROR(
          Check(*found, fmt::format("{}.{}", where, name), depth + 1));
    }
  }
  if (const auto found = schema.find("prefixItems"); found != schema.end()) {
    if (!found->is_array()) {
      return InvalidArgumentF("{}.prefixItems: expected a list", where);
    }
    for (size_t i = 0; i < found->size(); ++i) {
      TESSERA_RETURN_IF_ERROR(
          Check((*found)[i], fmt::format("{}.prefixItems[{}]", where, i), depth + 1));
    }
  }
  if (const auto found = schema.find("required"); found != schema.end()) {
    if (!found->is_array() ||
        !std::all_of(found->begin(), found->end(),
                     [](const Json& name) { return name.is_string(); })) {
      return InvalidArgumentF("{}.required: expected a list of names", where);
    }
  }
  const auto properties = schema.find("properties");
  if (const auto found = schema.find("required"); found != schema.end()) {
    // The library may leave out what no property declares.
    for (const Json& name : *found) {
      if (properties == schema.end() || !properties->contains(name.get<std::string>())) {
        return InvalidArgumentF("{}.required: {} is none of the properties", where,
                                name.dump());
      }
    }
  }
  if (properties == schema.end()) {
    return absl::OkStatus();
  }
  if (!properties->is_object()) {
    return InvalidArgumentF("{}.properties: expected an object", where);
  }
  for (const auto& [key, value] : properties->items()) {
    TESSERA_RETURN_IF_ERROR(
        Check(value, fmt::format("{}.properties.{}", where, key), depth + 1));
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status CheckSchema(const nlohmann::ordered_json& schema,
                         const GrammarLimits& limits) {
  return SchemaChecker(schema, limits).Check(schema, "schema", 0);
}

}  // namespace tessera::coordinator
