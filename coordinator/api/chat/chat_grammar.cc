#include "coordinator/api/chat/chat_grammar.h"

#include <utility>
#include <vector>

#include "fmt/format.h"
#include "nlohmann/json.hpp"

#include "coordinator/api/grammar_fields.h"
#include "coordinator/api/json/ordered_json.h"
#include "coordinator/grammar/grammar_limits.h"
#include "coordinator/grammar/schema_rules.h"
#include "model/chat/chat_encoding.h"
#include "model/chat/control_tokens.h"

namespace tessera::coordinator {
namespace {

using Json = nlohmann::ordered_json;

// Of all tools together: below GrammarLimits::max_text_bytes, which holds their tags too.
constexpr size_t kMaxSchemaBytes = 48 << 10;

// One tool as a grammar needs it.
struct Tool {
  std::string name;
  Json schema;
};

std::optional<ApiError> ReadTool(const Json& entry, size_t index,
                                 const ToolDemand& demand, size_t* bytes,
                                 std::vector<Tool>* tools) {
  const Json& function = demand.nested ? entry["function"] : entry;
  const std::string field(demand.schema_field);
  Tool tool{.name = function["name"].get<std::string>(),
            .schema = function.value(field, Json(nullptr))};
  if (tool.schema.is_null()) {
    tool.schema = {{"type", "object"}, {"properties", Json::object()}};
  }
  *bytes += tool.schema.dump().size();
  const bool fits = *bytes <= kMaxSchemaBytes;
  const absl::Status status =
      fits ? CheckSchema(tool.schema, GrammarLimits()) : absl::OkStatus();
  const bool is_object = tool.schema.value("type", Json()) == "object";
  if (!status.ok() || !is_object || !fits) {
    const bool strict = function.value("strict", Json()) == true;
    if (strict) {
      return BadRequestError(
          fmt::format("tools[{}].{}{}", index, demand.nested ? "function." : "", field),
          status.ok() ? "a strict tool needs a schema of type object, and 48 KiB are the "
                        "most for all tools"
                      : std::string(status.message()));
    }
    tool.schema = {{"type", "object"}, {"additionalProperties", true}};
  }
  tools->push_back(std::move(tool));
  return std::nullopt;
}

// A block of calls of `tools`.
Json CallsTag(const model::CallMarkup& markup, const std::vector<Tool>& tools,
              bool parallel, const std::string& before) {
  Json calls = Json::array();
  for (const Tool& tool : tools) {
    Json content = {{"type", "json_schema"}, {"json_schema", tool.schema}};
    if (!markup.schema_style.empty()) {
      content["style"] = markup.schema_style;
    }
    calls.push_back({{"type", "tag"},
                     {"begin", markup.call_open + tool.name + markup.after_name},
                     {"content", std::move(content)},
                     {"end", markup.call_close}});
  }
  return {{"type", "tag"},
          {"begin", before + markup.block_open + markup.after_block_open},
          {"content",
           {{"type", "tags_with_separator"},
            {"tags", std::move(calls)},
            {"separator", markup.between_calls},
            {"at_least_one", true},
            {"stop_after_first", !parallel}}},
          {"end", markup.block_close}};
}

// The format of a structural tag that is what `spec` asks for. An error names its field.
std::optional<ApiError> FormatOf(const GrammarSpec& spec, Json* format) {
  if (spec.kind == GrammarKind::kRegex) {
    *format = {{"type", "regex"}, {"pattern", spec.text}};
    return std::nullopt;
  }
  if (spec.kind == GrammarKind::kEbnf) {
    *format = {{"type", "grammar"}, {"grammar", spec.text}};
    return std::nullopt;
  }
  if (spec.kind == GrammarKind::kJsonObject) {
    *format = {{"type", "json_schema"},
               {"json_schema", {{"type", "object"}, {"additionalProperties", true}}}};
    return std::nullopt;
  }
  // Text of the client's inside a string of the body, whose depth nobody has checked.
  const absl::Status status = CheckJsonText(spec.text, GrammarLimits());
  if (!status.ok()) {
    return BadRequestError(spec.field, std::string(status.message()), "invalid_grammar");
  }
  const Json parsed = ParseOrderedJson(spec.text);
  if (spec.kind == GrammarKind::kJsonSchema) {
    *format = {{"type", "json_schema"}, {"json_schema", parsed}};
    return std::nullopt;
  }
  if (spec.kind == GrammarKind::kStructuralTag) {
    if (!parsed.is_object() || !parsed.contains("format")) {
      return BadRequestError(spec.field, "beside tools a structural tag needs a format",
                             "invalid_grammar");
    }
    *format = parsed["format"];
    return std::nullopt;
  }
  Json choices = Json::array();
  for (const Json& choice : parsed) {
    if (!choice.is_string() || choice.get_ref<const std::string&>().empty()) {
      return BadRequestError(spec.field,
                             "expected choices that are strings and not empty",
                             "invalid_grammar");
    }
    choices.push_back({{"type", "const_string"}, {"value", choice}});
  }
  *format = {{"type", "or"}, {"elements", std::move(choices)}};
  return std::nullopt;
}

// The tools that may be called, by name where one must be.
std::optional<ApiError> ReadToolsOf(std::string_view text, const ToolDemand& demand,
                                    std::vector<Tool>* tools) {
  const Json body = ParseOrderedJson(text);
  const auto found = body.find("tools");
  size_t bytes = 0;
  for (size_t i = 0; found != body.end() && i < found->size(); ++i) {
    if (auto bad = ReadTool((*found)[i], i, demand, &bytes, tools)) {
      return bad;
    }
  }
  if (!demand.name.empty()) {
    std::erase_if(*tools, [&](const Tool& tool) { return tool.name != demand.name; });
  }
  if (demand.choice == ToolDemand::Choice::kRequired && tools->empty()) {
    return BadRequestError("tool_choice",
                           demand.name.empty()
                               ? "tool_choice needs a call, and there are no tools"
                               : fmt::format("there is no tool {}", demand.name));
  }
  return std::nullopt;
}

}  // namespace

std::optional<ApiError> ConstrainAnswer(const ApiContext& context, std::string_view body,
                                        const ToolDemand& demand, bool in_reasoning,
                                        RequestSpec* spec) {
  std::vector<Tool> tools;
  if (demand.shows_tools()) {
    if (auto bad = ReadToolsOf(body, demand, &tools)) {
      return bad;
    }
  }
  const model::CallMarkup markup = context.chat->call_markup();
  const bool required = demand.choice == ToolDemand::Choice::kRequired;
  if (required && (markup.block_open.empty() || context.grammars == nullptr)) {
    return UnsupportedError("tool_choice", "this model has no markup to force a call");
  }
  if (!tools.empty() && !markup.block_open.empty() && context.grammars != nullptr) {
    const Json calls =
        CallsTag(markup, tools, demand.parallel, required ? markup.before_block : "");
    Json format = calls;
    if (!required && spec->grammar.has_value()) {
      Json answer;
      if (auto bad = FormatOf(*spec->grammar, &answer)) {
        return bad;
      }
      format = {{"type", "or"}, {"elements", Json::array({calls, std::move(answer)})}};
    } else if (!required) {
      format = {{"type", "triggered_tags"},
                {"triggers", Json::array({markup.block_open})},
                {"tags", Json::array({calls})},
                {"at_least_one", false},
                {"stop_after_first", true}};
    }
    const bool advisory = !required && !spec->grammar.has_value();
    spec->grammar = GrammarSpec();
    spec->grammar->kind = GrammarKind::kStructuralTag;
    spec->grammar->text =
        Json({{"type", "structural_tag"}, {"format", std::move(format)}}).dump();
    spec->grammar->field = "tools";
    spec->grammar->advisory = advisory;
  }
  if (spec->grammar.has_value() && in_reasoning) {
    spec->grammar->begins_after = context.tokenizer->TokenId(model::kEndThinkToken);
  }
  return std::nullopt;
}

}  // namespace tessera::coordinator
