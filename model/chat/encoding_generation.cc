#include "model/chat/encoding_generation.h"

#include <array>
#include <utility>

#include "fmt/format.h"

namespace tessera::model {
namespace {

constexpr std::string_view kThoroughText =
    "Reasoning Effort: Absolute maximum with no shortcuts permitted.\n"
    "You MUST be very thorough in your thinking and comprehensively decompose the "
    "problem to resolve the root cause, rigorously stress-testing your logic "
    "against all potential paths, edge cases, and adversarial scenarios.\n"
    "Explicitly write out your entire deliberation process, documenting every "
    "intermediate step, considered alternative, and rejected hypothesis to ensure "
    "absolutely no assumption is left unchecked.\n\n";

constexpr std::string_view kRelentlessText =
    "Reasoning Effort: Beyond maximum — exhaustive, relentless, and "
    "uncompromising.\n"
    "You MUST reason with the utmost depth and rigor, leaving absolutely nothing "
    "to chance: exhaustively decompose the problem into its most fundamental "
    "components, trace every causal chain to its root, and resolve the underlying "
    "cause rather than any surface symptom.\n"
    "Do not stop reasoning until you have independently verified the solution from "
    "multiple angles and are certain that no assumption remains unchecked and no "
    "error remains undiscovered.\n\n";

// {calls}, {invoke} and {parameter} are a DSML token and the tag name.
constexpr std::string_view kToolsBefore =
    "## Tools\n\n"
    "You have access to a set of tools to help answer the user's question. You "
    "can invoke tools by writing a \"<{calls}>\" block like the following:\n\n"
    "<{calls}>\n"
    "<{invoke} name=\"$TOOL_NAME\">\n"
    "<{parameter} name=\"$PARAMETER_NAME\" "
    "string=\"true|false\">$PARAMETER_VALUE</{parameter}>\n"
    "...\n"
    "</{invoke}>\n"
    "<{invoke} name=\"$TOOL_NAME2\">\n"
    "...\n"
    "</{invoke}>\n"
    "</{calls}>\n\n"
    "String parameters should be specified as is and set `string=\"true\"`. For "
    "all other types (numbers, booleans, arrays, objects), pass the value in "
    "JSON format and set `string=\"false\"`.\n\n"
    "If thinking_mode is enabled (triggered by <think>), you MUST output your "
    "complete reasoning inside <think>...</think> BEFORE any tool calls or final "
    "response.\n\n"
    "Otherwise, output directly after </think> with tool calls or final "
    "response.\n\n"
    "### Available Tool Schemas\n\n";

constexpr std::string_view kToolsAfter =
    "\n\nYou MUST strictly follow the above defined tool name and parameter schemas to "
    "invoke "
    "tool calls.\n";

constexpr std::array<std::pair<std::string_view, std::string_view>, 6> kTaskTokens = {{
    {"action", "<｜action｜>"},
    {"query", "<｜query｜>"},
    {"authority", "<｜authority｜>"},
    {"domain", "<｜domain｜>"},
    {"title", "<｜title｜>"},
    {"read_url", "<｜read_url｜>"},
}};

}  // namespace

constexpr EncodingGeneration kV4Preview = {
    .name = "v4",
    .low_effort_text = "",
    .high_effort_text = "",
    .max_effort_text = kThoroughText,
    .calls_tag = "tool_calls",
    .invoke_tag = "invoke",
    .parameter_tag = "parameter",
};

constexpr EncodingGeneration kV4July = {
    .name = "v4_0731",
    .low_effort_text = "",
    .high_effort_text = kThoroughText,
    .max_effort_text = kRelentlessText,
    .calls_tag = "tool_calls",
    .invoke_tag = "invoke",
    .parameter_tag = "parameter",
};

ToolsText MakeToolsText(const EncodingGeneration& generation) {
  const auto tag = [](std::string_view name) {
    return fmt::format("{}{}", kDsmlToken, name);
  };
  return {.before_schemas =
              fmt::format(kToolsBefore, fmt::arg("calls", tag(generation.calls_tag)),
                          fmt::arg("invoke", tag(generation.invoke_tag)),
                          fmt::arg("parameter", tag(generation.parameter_tag))),
          .after_schemas = std::string(kToolsAfter)};
}

std::string_view TaskToken(std::string_view task) {
  for (const auto& [name, token] : kTaskTokens) {
    if (name == task) {
      return token;
    }
  }
  return {};
}

}  // namespace tessera::model
