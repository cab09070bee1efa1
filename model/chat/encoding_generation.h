// What differs between the generations of DeepSeek's chat encodings with DSML tool calls
// (V3.2 and later), as data: texts and tags that the weights were trained on, byte for
// byte, and the rules that changed. A generation with other words is another row here,
// not a branch in the encoder. (V3 to V3.1 write tool calls with tokens of their own:
// call_format.h.)
#ifndef TESSERA_MODEL_CHAT_ENCODING_GENERATION_H_
#define TESSERA_MODEL_CHAT_ENCODING_GENERATION_H_

#include <array>
#include <cstdint>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"

#include "model/chat/chat_encoding.h"
#include "model/chat/conversation.h"

namespace tessera::model {

struct EncodingGeneration {
  std::string_view name;

  // Put before the first message in thinking mode, by ReasoningEffort; "" for none.
  std::array<std::string_view, kNumEfforts> effort_texts{};

  // Efforts as numbers from 1 to 100 instead: the text around the number ("" where
  // efforts have texts), and the numbers of the named efforts.
  std::string_view effort_number_before{};
  std::string_view effort_number_after{};
  std::array<int32_t, kNumEfforts> effort_numbers{};

  // Written before every system message and before the effort; "" for none.
  std::string_view system_token{};
  TurnRules turn_rules{};
  bool has_tool_namespaces = false;  // `files::read` names a tool

  // Names in the tool markup; each follows a DSML token directly.
  std::string_view calls_tag;
  std::string_view invoke_tag;
  std::string_view parameter_tag;

  // The section of a system prompt that explains tool calls; the schemas stand between.
  // {calls}, {invoke} and {parameter} are a DSML token and the tag name.
  std::string_view tools_before_schemas;
  std::string_view tools_after_schemas;

  // How the published parser reads a turn.
  bool keeps_line_breaks = false;    // between the reasoning and the content
  bool requires_eos = false;         // the end-of-sentence token must be there
  bool is_lenient_in_calls = false;  // takes values that are no JSON, and a text that
                                     // ends after the line of a parameter
};

// V3.2.
extern const EncodingGeneration kV32;
// V4-Flash and V4-Pro, the preview release.
extern const EncodingGeneration kV4Preview;
// V4-Flash-0731 and Vision-Exp: other effort texts.
extern const EncodingGeneration kV4July;
// V4.1: a system token, efforts as numbers, tags that begin with a space.
extern const EncodingGeneration kV41;

// What stands before the first message in thinking mode, without the system token.
// `number` is that of ChatOptions. kInvalidArgument: a number outside 1..100, or in a
// generation whose efforts have texts.
absl::StatusOr<std::string> EffortText(const EncodingGeneration& generation,
                                       ReasoningEffort effort, int32_t number);

// The tools section with the control tokens spelled out; `schemas` go between the two
// parts, one JSON object a line.
struct ToolsText {
  std::string before_schemas;
  std::string after_schemas;
};
ToolsText MakeToolsText(const EncodingGeneration& generation);

}  // namespace tessera::model

#endif  // TESSERA_MODEL_CHAT_ENCODING_GENERATION_H_
