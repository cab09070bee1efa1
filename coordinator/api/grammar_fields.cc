#include "coordinator/api/grammar_fields.h"

#include <string_view>
#include <utility>

#include "fmt/format.h"
#include "nlohmann/json.hpp"

#include "coordinator/api/json/ordered_json.h"

namespace tessera::coordinator {
namespace {

using nlohmann::json;
using nlohmann::ordered_json;

// One way of asking: the key inside structured_outputs, and the older field of its own.
struct Spelling {
  std::string_view key;
  std::string_view older;
  GrammarKind kind;
};
constexpr Spelling kSpellings[] = {
    {"json", "guided_json", GrammarKind::kJsonSchema},
    {"regex", "guided_regex", GrammarKind::kRegex},
    {"choice", "guided_choice", GrammarKind::kChoice},
    {"grammar", "guided_grammar", GrammarKind::kEbnf},
    {"json_object", "guided_json_object", GrammarKind::kJsonObject},
    {"structural_tag", "structural_tag", GrammarKind::kStructuralTag}};

bool IsGiven(const ordered_json& object, std::string_view key) {
  const auto found = object.find(std::string(key));
  return found != object.end() && !found->is_null() && *found != false;
}

std::optional<ApiError> SetGrammar(GrammarSpec spec, std::optional<GrammarSpec>* out) {
  if (out->has_value()) {
    return BadRequestError(spec.field,
                           fmt::format("{} and {} both say what the answer must be",
                                       (*out)->field, spec.field));
  }
  *out = std::move(spec);
  return std::nullopt;
}

// The value of one spelling; schemas and tags may be JSON or text that holds it.
std::optional<ApiError> ReadSpelling(const ordered_json& value, GrammarKind kind,
                                     const std::string& field,
                                     std::optional<GrammarSpec>* out) {
  GrammarSpec spec;
  spec.kind = kind;
  spec.field = field;
  switch (kind) {
    case GrammarKind::kJsonObject:
      if (!value.is_boolean()) {
        return BadRequestError(field, fmt::format("{} must be true or false", field));
      }
      break;
    case GrammarKind::kJsonSchema:
    case GrammarKind::kStructuralTag:
      if (!value.is_string() && !value.is_object()) {
        return BadRequestError(field, fmt::format("{} must be an object", field));
      }
      spec.text = value.is_string() ? value.get<std::string>() : value.dump();
      break;
    case GrammarKind::kChoice:
      if (!value.is_array()) {
        return BadRequestError(field, fmt::format("{} must be a list of strings", field));
      }
      spec.text = value.dump();
      break;
    case GrammarKind::kRegex:
    case GrammarKind::kEbnf:
      if (!value.is_string()) {
        return BadRequestError(field, fmt::format("{} must be a string", field));
      }
      spec.text = value.get<std::string>();
      break;
  }
  return SetGrammar(std::move(spec), out);
}

std::optional<ApiError> ReadStructuredOutputs(const ordered_json& body,
                                              std::optional<GrammarSpec>* out) {
  if (!IsGiven(body, "structured_outputs")) {
    return std::nullopt;
  }
  const ordered_json& asked = body["structured_outputs"];
  if (!asked.is_object()) {
    return BadRequestError("structured_outputs", "structured_outputs must be an object");
  }
  for (const auto& [key, value] : asked.items()) {
    const Spelling* known = nullptr;
    for (const Spelling& spelling : kSpellings) {
      known = spelling.key == key ? &spelling : known;
    }
    const std::string field = "structured_outputs." + key;
    if (known == nullptr) {
      // Options of how whitespace is written have no effect on what is valid.
      if (key == "disable_any_whitespace" || key == "disable_fallback" ||
          value.is_null()) {
        continue;
      }
      return UnsupportedError(field, fmt::format("{} is not supported", field));
    }
    if (IsGiven(asked, key)) {
      if (auto bad = ReadSpelling(value, known->kind, field, out)) {
        return bad;
      }
    }
  }
  return std::nullopt;
}

std::optional<ApiError> ReadResponseFormat(const ordered_json& body,
                                           std::optional<GrammarSpec>* out) {
  if (!IsGiven(body, "response_format")) {
    return std::nullopt;
  }
  const ordered_json& format = body["response_format"];
  if (!format.is_object() || !format.contains("type") || !format["type"].is_string()) {
    return BadRequestError("response_format",
                           "response_format must be an object with a type");
  }
  const std::string& type = format["type"].get_ref<const std::string&>();
  if (type == "json_schema") {
    const auto named = format.find("json_schema");
    if (named == format.end() || !named->is_object() || !named->contains("schema") ||
        !(*named)["schema"].is_object()) {
      return BadRequestError("response_format.json_schema.schema",
                             "response_format.json_schema.schema must be an object");
    }
    return ReadSpelling((*named)["schema"], GrammarKind::kJsonSchema,
                        "response_format.json_schema.schema", out);
  }
  if (type == "structural_tag") {
    return ReadSpelling(format, GrammarKind::kStructuralTag, "response_format", out);
  }
  return ReadFlatFormat(format, "response_format", out);
}

}  // namespace

ordered_json OrderedBody(const HttpRequest& request) {
  ordered_json body = ParseOrderedJson(request.body);
  return body.is_object() ? std::move(body) : ordered_json::object();
}

std::optional<ApiError> ReadFlatFormat(const ordered_json& format,
                                       const std::string& field,
                                       std::optional<GrammarSpec>* grammar) {
  if (format.is_null()) {
    return std::nullopt;
  }
  const ordered_json type =
      format.is_object() ? format.value("type", ordered_json()) : ordered_json();
  if (type == "text") {
    return std::nullopt;
  }
  if (type == "json_object") {
    return ReadSpelling(true, GrammarKind::kJsonObject, field, grammar);
  }
  if (type != "json_schema") {
    return BadRequestError(
        field, fmt::format("{}.type must be text, json_object or json_schema", field));
  }
  const ordered_json schema = format.value("schema", ordered_json());
  if (!schema.is_object()) {
    return BadRequestError(field + ".schema",
                           fmt::format("{}.schema must be an object", field));
  }
  return ReadSpelling(schema, GrammarKind::kJsonSchema, field + ".schema", grammar);
}

std::optional<ApiError> ReadGrammarFields(const json& body, const HttpRequest& request,
                                          std::optional<GrammarSpec>* grammar) {
  bool any = body.contains("response_format") || body.contains("structured_outputs");
  for (const Spelling& spelling : kSpellings) {
    any = any || body.contains(std::string(spelling.older));
  }
  if (!any) {
    return std::nullopt;
  }
  const ordered_json ordered = OrderedBody(request);
  if (auto bad = ReadResponseFormat(ordered, grammar)) {
    return bad;
  }
  if (auto bad = ReadStructuredOutputs(ordered, grammar)) {
    return bad;
  }
  for (const Spelling& spelling : kSpellings) {
    if (IsGiven(ordered, spelling.older)) {
      const std::string field(spelling.older);
      if (auto bad = ReadSpelling(ordered[field], spelling.kind, field, grammar)) {
        return bad;
      }
    }
  }
  return std::nullopt;
}

}  // namespace tessera::coordinator
