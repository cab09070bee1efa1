#include "coordinator/api/grpc/tools_convert.h"

#include "fmt/format.h"
#include "nlohmann/json.hpp"

#include "coordinator/api/chat/chat_prompt.h"
#include "coordinator/api/chat/chat_tools.h"
#include "coordinator/api/json_fields.h"

namespace tessera::coordinator {
namespace {

using nlohmann::json;

std::string ChoiceText(const api::v1::ChatRequest& request) {
  if (!request.required_tool().empty()) {
    return DumpJson(
        {{"type", "function"}, {"function", {{"name", request.required_tool()}}}});
  }
  switch (request.tool_choice()) {
    case api::v1::TOOL_CHOICE_NONE:
      return R"("none")";
    case api::v1::TOOL_CHOICE_REQUIRED:
      return R"("required")";
    default:
      return R"("auto")";
  }
}

}  // namespace

std::optional<ApiError> ReadGrpcTools(const ApiContext& context,
                                      const api::v1::ChatRequest& request,
                                      std::vector<model::ChatMessage>* messages,
                                      ToolDemand* demand, std::string* body) {
  *body = R"({"tools":[)";
  for (int i = 0; i < request.tools_size(); ++i) {
    const api::v1::Tool& tool = request.tools(i);
    *body += i == 0 ? "" : ",";
    *body += R"({"type":"function","function":{"name":)" + DumpJson(json(tool.name()));
    if (!tool.description().empty()) {
      *body += R"(,"description":)" + DumpJson(json(tool.description()));
    }
    if (!tool.parameters().empty()) {
      // By itself: behind the end of one text another member could be smuggled in.
      if (!ParseJsonObject(tool.parameters(), context.options.max_json_depth).ok()) {
        return BadRequestError(fmt::format("tools[{}].parameters", i),
                               "parameters must be the text of a JSON object");
      }
      *body += R"(,"parameters":)" + tool.parameters();
    }
    *body += tool.strict() ? R"(,"strict":true}})" : "}}";
  }
  *body += R"(],"tool_choice":)" + ChoiceText(request);
  if (request.has_parallel_tool_calls()) {
    *body += R"(,"parallel_tool_calls":)";
    *body += request.parallel_tool_calls() ? "true" : "false";
  }
  *body += "}";
  // The members of a body around a tool's schema.
  constexpr int32_t kDepthOfSchema = 4;
  const auto parsed =
      ParseJsonObject(*body, context.options.max_json_depth + kDepthOfSchema);
  if (!parsed.ok()) {
    return BadRequestError("tools", std::string(parsed.status().message()));
  }
  return ReadTools(*parsed, *body, RulesOf(context), messages, demand);
}

}  // namespace tessera::coordinator
