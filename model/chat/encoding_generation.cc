#include "model/chat/encoding_generation.h"

#include "fmt/format.h"

#include "common/status.h"
#include "common/status_macros.h"
#include "model/chat/control_tokens.h"

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

// V4 and later.
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

// V3.2.
constexpr std::string_view kFunctionsBefore =
    "## Tools\n"
    "You have access to a set of tools you can use to answer the user's question.\n"
    "You can invoke functions by writing a \"<{calls}>\" block like the following as "
    "part "
    "of your reply to the user:\n"
    "<{calls}>\n"
    "<{invoke} name=\"$FUNCTION_NAME\">\n"
    "<{parameter} name=\"$PARAMETER_NAME\" "
    "string=\"true|false\">$PARAMETER_VALUE</{parameter}>\n"
    "...\n"
    "</{invoke}>\n"
    "<{invoke} name=\"$FUNCTION_NAME2\">\n"
    "...\n"
    "</{invoke}>\n"
    "</{calls}>\n"
    "String and scalar parameters should be specified as is without any escaping or "
    "quotes, while lists and objects should use JSON format. The \"string\" attribute "
    "should be set to \"true\" for string type parameters and \"false\" for other types "
    "(numbers, booleans, arrays, objects).\n"
    "If the thinking_mode is enabled, then after function results you should strongly "
    "consider outputting a thinking block. Here is an example:\n"
    "<{calls}>\n"
    "...\n"
    "</{calls}>\n"
    "<function_results>\n"
    "...\n"
    "</function_results>\n"
    "<think>...thinking about results</think>\n"
    "Here are the functions available in JSONSchema format:\n"
    "<functions>\n";

constexpr std::string_view kFunctionsAfter = "\n</functions>\n";

}  // namespace

constexpr EncodingGeneration kV32 = {
    .name = "v32",
    .calls_tag = "function_calls",
    .invoke_tag = "invoke",
    .parameter_tag = "parameter",
    .tools_before_schemas = kFunctionsBefore,
    .tools_after_schemas = kFunctionsAfter,
    .keeps_line_breaks = true,
    .requires_eos = true,
    .is_lenient_in_calls = true,
};

constexpr EncodingGeneration kV4Preview = {
    .name = "v4",
    .effort_texts = {"", "", "", kThoroughText},
    .calls_tag = "tool_calls",
    .invoke_tag = "invoke",
    .parameter_tag = "parameter",
    .tools_before_schemas = kToolsBefore,
    .tools_after_schemas = kToolsAfter,
};

constexpr EncodingGeneration kV4July = {
    .name = "v4_0731",
    .effort_texts = {"", "", kThoroughText, kRelentlessText},
    .calls_tag = "tool_calls",
    .invoke_tag = "invoke",
    .parameter_tag = "parameter",
    .tools_before_schemas = kToolsBefore,
    .tools_after_schemas = kToolsAfter,
};

constexpr EncodingGeneration kV41 = {
    .name = "v41",
    .effort_number_before = "Reasoning Effort: ",
    .effort_number_after =
        " (range 1-100, the higher the value, the more thorough the reasoning)\n\n",
    .effort_numbers = {75, 50, 75, 100},
    .system_token = kSystemToken,
    .turn_rules = {.late_system_opens_turn = true, .results_continue_turn = true},
    .has_tool_namespaces = true,
    .calls_tag = " calls",
    .invoke_tag = " invoke",
    .parameter_tag = " parameter",
    .tools_before_schemas = kToolsBefore,
    .tools_after_schemas = kToolsAfter,
};

absl::StatusOr<std::string> EffortText(const EncodingGeneration& generation,
                                       ReasoningEffort effort, int32_t number) {
  constexpr int32_t kMaxNumber = 100;
  const auto idx = static_cast<size_t>(effort);
  if (generation.effort_number_before.empty()) {
    if (number != 0) {
      return InvalidArgumentF(
          "reasoning effort {}, expected a name: this model knows no numbers", number);
    }
    return std::string(generation.effort_texts[idx]);
  }
  if (number < 0 || number > kMaxNumber) {
    return InvalidArgumentF("reasoning effort {}, expected 1 to {}", number, kMaxNumber);
  }
  return fmt::format("{}{}{}", generation.effort_number_before,
                     number != 0 ? number : generation.effort_numbers[idx],
                     generation.effort_number_after);
}

ToolsText MakeToolsText(const EncodingGeneration& generation) {
  const auto tag = [](std::string_view name) {
    return fmt::format("{}{}", kDsmlToken, name);
  };
  return {
      .before_schemas = fmt::format(fmt::runtime(generation.tools_before_schemas),
                                    fmt::arg("calls", tag(generation.calls_tag)),
                                    fmt::arg("invoke", tag(generation.invoke_tag)),
                                    fmt::arg("parameter", tag(generation.parameter_tag))),
      .after_schemas = std::string(generation.tools_after_schemas)};
}

}  // namespace tessera::model
