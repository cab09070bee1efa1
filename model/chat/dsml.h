// DSML, the tool markup of V3.2 and later: written into prompts and read from generated
// text.
//
//   <|DSML|tool_calls>
//   <|DSML|invoke name="NAME">
//   <|DSML|parameter name="KEY" string="true|false">VALUE</|DSML|parameter>
//   </|DSML|invoke>
//   </|DSML|tool_calls>
//
// (with full-width bars). Values are raw text where string="true" and JSON where it is
// "false". This header holds what prompts, the strict parser and the streaming parser
// (turn_parser.h) share.
#ifndef TESSERA_MODEL_CHAT_DSML_H_
#define TESSERA_MODEL_CHAT_DSML_H_

#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"

#include "model/chat/chat_encoding.h"
#include "model/chat/encoding_generation.h"
#include "model/chat/prompt_writer.h"

namespace tessera::model {

// The tags of one generation, spelled out.
struct DsmlTags {
  explicit DsmlTags(const EncodingGeneration& generation);

  std::string calls_open;       // <D tool_calls>
  std::string calls_close;      // </D tool_calls>
  std::string invoke_open;      // <D invoke name="       then NAME">
  std::string invoke_close;     // </D invoke>
  std::string parameter_open;   // <D parameter name="    then KEY" string="true">
  std::string parameter_close;  // </D parameter>
};

// Ends of the opening tags after a name or a key.
inline constexpr std::string_view kNameEnd = "\">";
inline constexpr std::string_view kStringTrueEnd = "\" string=\"true\">";
inline constexpr std::string_view kStringFalseEnd = "\" string=\"false\">";

// Writes the block of an assistant message, without the blank line in front of it.
// Arguments that are no JSON object become one parameter `arguments`; empty ones become
// none.
void WriteToolCalls(const DsmlTags& tags, const std::vector<ToolCall>& calls,
                    PromptWriter* writer);

// Adds one parameter to the JSON text of a call's arguments, which starts as "{".
// `is_open` leaves a string without its closing quote: the generation ended inside the
// value.
void AppendArgument(std::string_view key, std::string_view value, bool is_string,
                    bool is_open, std::string* arguments);

// Reads a whole block from the start of `text` and cuts it off `text`, strictly: line
// breaks, one `string` attribute each, JSON values that parse, no key twice.
// `is_lenient` takes values that are no JSON, and a text that ends after the line of a
// parameter. kInvalidArgument says what was expected. The ids of the calls are empty.
absl::StatusOr<std::vector<ToolCall>> ReadToolCalls(const DsmlTags& tags, bool is_lenient,
                                                    std::string_view* text);

}  // namespace tessera::model

#endif  // TESSERA_MODEL_CHAT_DSML_H_
