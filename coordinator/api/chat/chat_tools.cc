#include "coordinator/api/chat/chat_tools.h"

#include <algorithm>
#include <string>
#include <utility>

#include "fmt/format.h"
#include "nlohmann/json.hpp"

#include "coordinator/api/json/json_source.h"
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

// One flat tool as an OpenAI tool, whose text it adds to `out`.
std::optional<ApiError> ReadFlatTool(const json& tool, const std::string& where,
                                     std::string_view text, const FlatTools& shape,
                                     const MessageRules& rules, std::string* out) {
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
  *out += R"({"type":"function","function":{"name":)" + DumpJson(tool["name"]);
  if (description.has_value()) {
    *out += R"(,"description":)" + DumpJson(json(*description));
  }
  if (tool.contains(schema_field)) {
    *out += R"(,"parameters":)";
    *out += JsonMember(text, schema_field);
  }
  *out += "}}";
  return std::nullopt;
}

}  // namespace

std::optional<ApiError> ReadToolChoice(const json& body, ToolDemand* demand) {
  FieldError error;
  JsonFields fields(body, &error);
  demand->parallel = fields.Bool("parallel_tool_calls").value_or(true);
  if (!fields.ok()) {
    return FromFieldError(error);
  }
  const auto choice = body.find("tool_choice");
  if (choice == body.end() || choice->is_null() || *choice == "auto") {
    return std::nullopt;
  }
  if (*choice == "none") {
    demand->choice = ToolDemand::Choice::kNone;
    return std::nullopt;
  }
  demand->choice = ToolDemand::Choice::kRequired;
  if (*choice == "required") {
    return std::nullopt;
  }
  if (!choice->is_object() || choice->value("type", json()) != "function") {
    return BadRequestError("tool_choice",
                           "tool_choice must be none, auto, required or a function");
  }
  const json function = choice->value("function", json());
  const json name = function.is_object() ? function.value("name", json())
                                         : choice->value("name", json());
  if (!name.is_string() || name.get_ref<const std::string&>().empty()) {
    return BadRequestError("tool_choice", "a tool_choice of a function needs its name");
  }
  demand->name = name.get<std::string>();
  return std::nullopt;
}

std::optional<ApiError> ReadTools(const json& body, std::string_view text,
                                  const MessageRules& rules,
                                  std::vector<model::ChatMessage>* messages,
                                  ToolDemand* demand) {
  const json* tools = nullptr;
  if (auto bad = FindTools(body, rules, &tools)) {
    return bad;
  }
  if (auto bad = ReadToolChoice(body, demand)) {
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
  if (demand->shows_tools() && !tools->empty()) {
    ShowTools(std::string(JsonMember(text, "tools")), messages);
  }
  return std::nullopt;
}

std::optional<ApiError> ReadFlatTools(const json& body, std::string_view text,
                                      const FlatTools& shape, const MessageRules& rules,
                                      std::string* tools_json) {
  tools_json->clear();
  const json* found = nullptr;
  if (auto bad = FindTools(body, rules, &found)) {
    return bad;
  }
  if (found == nullptr || found->empty()) {
    return std::nullopt;
  }
  const auto texts = JsonElements(JsonMember(text, "tools"));
  if (texts.size() != found->size()) {
    return BadRequestError("tools", "tools can't be found in the body");
  }
  for (size_t i = 0; i < found->size(); ++i) {
    *tools_json += i == 0 ? '[' : ',';
    if (auto bad = ReadFlatTool((*found)[i], fmt::format("tools[{}]", i), texts[i], shape,
                                rules, tools_json)) {
      return bad;
    }
  }
  *tools_json += ']';
  return std::nullopt;
}

void ShowTools(std::string tools_json, std::vector<model::ChatMessage>* messages) {
  if (tools_json.empty()) {
    return;
  }
  const auto system = std::find_if(
      messages->begin(), messages->end(),
      [](const model::ChatMessage& message) { return message.role == "system"; });
  if (system != messages->end()) {
    system->tools_json = std::move(tools_json);
    return;
  }
  model::ChatMessage made;
  made.role = "system";
  made.tools_json = std::move(tools_json);
  messages->insert(messages->begin(), std::move(made));
}

}  // namespace tessera::coordinator
