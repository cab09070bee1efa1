// What differs between the generations of DeepSeek's V4 chat encoding, as data: texts and
// tags that the weights were trained on, byte for byte. A generation with other words is
// another row here, not a branch in the encoder.
#ifndef TESSERA_MODEL_CHAT_ENCODING_GENERATION_H_
#define TESSERA_MODEL_CHAT_ENCODING_GENERATION_H_

#include <string>
#include <string_view>

namespace tessera::model {

// Control tokens of the V4 generations; each is one id of the tokenizer.
inline constexpr std::string_view kBosToken = "<｜begin▁of▁sentence｜>";
inline constexpr std::string_view kEosToken = "<｜end▁of▁sentence｜>";
inline constexpr std::string_view kUserToken = "<｜User｜>";
inline constexpr std::string_view kAssistantToken = "<｜Assistant｜>";
inline constexpr std::string_view kThinkToken = "<think>";
inline constexpr std::string_view kEndThinkToken = "</think>";
inline constexpr std::string_view kDsmlToken = "｜DSML｜";
inline constexpr std::string_view kLatestReminderToken = "<｜latest_reminder｜>";

struct EncodingGeneration {
  std::string_view name;

  // Put before the first message in thinking mode; "" for none.
  std::string_view low_effort_text;
  std::string_view high_effort_text;
  std::string_view max_effort_text;

  // Names in the tool markup; each follows a DSML token directly.
  std::string_view calls_tag;
  std::string_view invoke_tag;
  std::string_view parameter_tag;
};

// V4-Flash and V4-Pro, the preview release.
extern const EncodingGeneration kV4Preview;
// V4-Flash-0731 and Vision-Exp: other effort texts.
extern const EncodingGeneration kV4July;

// The section of a system prompt that explains tool calls, with the control tokens
// spelled out; `schemas` go between the two parts, one JSON object a line.
struct ToolsText {
  std::string before_schemas;
  std::string after_schemas;
};
ToolsText MakeToolsText(const EncodingGeneration& generation);

// The line before the schema of a response format.
inline constexpr std::string_view kResponseFormatText =
    "## Response Format:\n\nYou MUST strictly adhere to the following schema to reply:\n";

// The control token of a task ("action", "query", ...); empty for a name that is none.
std::string_view TaskToken(std::string_view task);

}  // namespace tessera::model

#endif  // TESSERA_MODEL_CHAT_ENCODING_GENERATION_H_
