#include "coordinator/api/chat/chat_tools.h"

#include <algorithm>
#include <string>
#include <utility>

#include "fmt/format.h"
#include "nlohmann/json.hpp"

#include "coordinator/api/json_fields.h"

namespace tessera::coordinator {
namespace {

using nlohmann::json;

constexpr size_t kMaxToolNameBytes = 64;
constexpr std::string_view kNamespaceSeparator = "::";

bool IsWord(std::string_view name) {
  return !name.empty() && std::all_of(name.begin(), name.end(), [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
           c == '_' || c == '-';
  });
}

// A word, or where the model knows namespaces, two of them as `namespace::name`.
bool IsToolName(std::string_view name, bool has_namespaces) {
  if (name.size() > kMaxToolNameBytes) {
    return false;
  }
  const size_t separator =
      has_namespaces ? name.find(kNamespaceSeparator) : std::string_view::npos;
  if (separator == std::string_view::npos) {
    return IsWord(name);
  }
  return IsWord(name.substr(0, separator)) &&
         IsWord(name.substr(separator + kNamespaceSeparator.size()));
}

// Name and schema of a function, the members of `function`; `where` ends in a dot.
std::optional<ApiError> CheckFunction(const json& function, const std::string& where,
                                      const std::string& schema_field,
                                      const MessageRules& rules) {
  const auto name = function.find("name");
  if (name == function.end() || !name->is_string() ||
      !IsToolName(name->get_ref<const std::string&>(), rules.has_tool_namespaces)) {
    return BadRequestError(where + "name",
                           rules.has_tool_namespaces
                               ? "a function name has 1 to 64 letters, digits, _ and -, "
                                 "and may be namespace::name"
                               : "a function name has 1 to 64 letters, digits, _ and -");
  }
  const auto schema = function.find(schema_field);
  if (schema != function.end() && !schema->is_object()) {
    return BadRequestError(where + schema_field, schema_field + " must be an object");
  }
  return std::nullopt;
}

std::optional<ApiError> CheckTool(const json& tool, size_t index,
                                  const MessageRules& rules) {
  const std::string where = fmt::format("tools[{}]", index);
  const bool shaped = tool.is_object() && tool.value("type", json()) == "function" &&
                      tool.contains("function") && tool["function"].is_object();
  if (!shaped) {
    return BadRequestError(where, "a tool must be {type: function, function: {…}}");
  }
  return CheckFunction(tool["function"], where + ".function.", "parameters", rules);
}

// The array `tools` of `body`, null where there is none, or an error.
std::optional<ApiError> FindTools(const json& body, const MessageRules& rules,
                                  const json** tools) {
  FieldError error;
  JsonFields fields(body, &error);
  *tools = fields.Array("tools");
  if (!fields.ok()) {
    return FromFieldError(error);
  }
  if (*tools != nullptr && (*tools)->size() > static_cast<size_t>(rules.max_tools)) {
    return BadRequestError("tools", fmt::format("{} tools, expected at most {}",
                                                (*tools)->size(), rules.max_tools));
  }
  return std::nullopt;
}

// One flat tool as an OpenAI tool.
std::optional<ApiError> ReadFlatTool(const json& tool, size_t index,
                                     const FlatTools& shape, const MessageRules& rules,
                                     json* out) {
  const std::string where = fmt::format("tools[{}]", index);
  if (!tool.is_object()) {
    return BadRequestError(where, "a tool must be an object");
  }
  FieldError error;
  JsonFields fields(tool, &error, where + ".");
  const auto type = fields.String("type");
  const auto description = fields.String("description");
  if (!fields.ok()) {
    return FromFieldError(error);
  }
  if (shape.needs_type && !type.has_value()) {
    return BadRequestError(where + ".type", "a tool must have a type");
  }
  if (type.value_or(std::string(shape.type)) != shape.type) {
    return UnsupportedError(
        where + ".type",
        fmt::format("this server runs no tools itself: only tools of type {} are "
                    "supported",
                    shape.type));
  }
  const std::string schema_field(shape.schema_field);
  if (auto bad = CheckFunction(tool, where + ".", schema_field, rules)) {
    return bad;
  }
  json function = {{"name", tool["name"]}};
  if (description.has_value()) {
    function["description"] = *description;
  }
  if (const auto schema = tool.find(schema_field); schema != tool.end()) {
    function["parameters"] = *schema;
  }
  *out = {{"type", "function"}, {"function", std::move(function)}};
  return std::nullopt;
}

}  // namespace

ApiError ForcedCallError() {
  return UnsupportedError(
      "tool_choice",
      "tool_choice can't force a call, of any tool or of a named one: that needs "
      "constrained decoding, which this build lacks");
}

std::optional<ApiError> ReadToolChoice(const json& body, bool* use_tools) {
  *use_tools = true;
  const auto choice = body.find("tool_choice");
  if (choice == body.end() || choice->is_null()) {
    return std::nullopt;
  }
  if (*choice == "none") {
    *use_tools = false;
    return std::nullopt;
  }
  if (*choice == "auto") {
    return std::nullopt;
  }
  if (*choice == "required" || choice->is_object()) {
    return ForcedCallError();
  }
  return BadRequestError("tool_choice", "tool_choice must be none, auto or required");
}

std::optional<ApiError> ReadTools(const json& body, const MessageRules& rules,
                                  std::vector<model::ChatMessage>* messages) {
  const json* tools = nullptr;
  if (auto bad = FindTools(body, rules, &tools)) {
    return bad;
  }
  bool use_tools = false;
  if (auto bad = ReadToolChoice(body, &use_tools)) {
    return bad;
  }
  if (tools == nullptr) {
    return std::nullopt;
  }
  for (size_t i = 0; i < tools->size(); ++i) {
    if (auto bad = CheckTool((*tools)[i], i, rules)) {
      return bad;
    }
  }
  if (use_tools) {
    ShowTools(*tools, messages);
  }
  return std::nullopt;
}

std::optional<ApiError> ReadFlatTools(const json& body, const FlatTools& shape,
                                      const MessageRules& rules, json* tools) {
  *tools = json::array();
  const json* found = nullptr;
  if (auto bad = FindTools(body, rules, &found)) {
    return bad;
  }
  for (size_t i = 0; found != nullptr && i < found->size(); ++i) {
    json tool;
    if (auto bad = ReadFlatTool((*found)[i], i, shape, rules, &tool)) {
      return bad;
    }
    tools->push_back(std::move(tool));
  }
  return std::nullopt;
}

void ShowTools(const json& tools, std::vector<model::ChatMessage>* messages) {
  if (tools.empty()) {
    return;
  }
  const auto system = std::find_if(
      messages->begin(), messages->end(),
      [](const model::ChatMessage& message) { return message.role == "system"; });
  if (system != messages->end()) {
    system->tools_json = DumpJson(tools);
    return;
  }
  model::ChatMessage made;
  made.role = "system";
  made.tools_json = DumpJson(tools);
  messages->insert(messages->begin(), std::move(made));
}

}  // namespace tessera::coordinator
