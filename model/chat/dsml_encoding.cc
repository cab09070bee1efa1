#include "model/chat/dsml_encoding.h"

#include "model/chat/strict_turn.h"
#include "model/chat/turn_parser.h"

namespace tessera::model {

DsmlEncoding::DsmlEncoding(const EncodingGeneration& generation,
                           const Tokenizer* tokenizer,
                           const std::vector<AddedToken>& control_tokens)
    : generation_(generation),
      tokenizer_(tokenizer),
      control_tokens_(control_tokens),
      tags_(generation),
      tools_text_(MakeToolsText(generation)),
      prose_({.block_open = tags_.calls_open,
              .blank_line_before_block = true,
              .keeps_line_breaks = generation.keeps_line_breaks}) {}

ChatTraits DsmlEncoding::traits() const {
  return {.has_effort_numbers = !generation_.effort_number_before.empty(),
          .has_tool_namespaces = generation_.has_tool_namespaces};
}

CallMarkup DsmlEncoding::call_markup() const {
  const bool spaced = generation_.parameter_tag.starts_with(' ');
  return {.before_block = "\n\n",
          .block_open = tags_.calls_open,
          .after_block_open = "\n",
          .call_open = tags_.invoke_open,
          .after_name = std::string(kNameEnd) + "\n",
          .call_close = tags_.invoke_close,
          .between_calls = "\n",
          .block_close = "\n" + tags_.calls_close,
          .schema_style = spaced ? "deepseek_v4_1_xml" : "deepseek_xml"};
}

std::unique_ptr<TurnParser> DsmlEncoding::NewTurnParser(bool thinking) const {
  return std::make_unique<DsmlTurnParser>(&tags_, &prose_, thinking);
}

absl::StatusOr<ParsedTurn> DsmlEncoding::ParseTurn(std::string_view text,
                                                   bool thinking) const {
  return ReadTurn(generation_, tags_, text, thinking);
}

}  // namespace tessera::model
