// How V3, R1 and V3.1 write turns and tool calls, as data: tokens of their own around
// each call and result, as the chat templates of DeepSeek's releases do. These are of
// V3-0324, R1 and V3.1-Terminus, each the last of its kind. No template names the tools
// of a request: for V3.1 that text is from the model card, for V3 and R1 it is the same
// with their form of a call.
#ifndef TESSERA_MODEL_CHAT_CALL_FORMAT_H_
#define TESSERA_MODEL_CHAT_CALL_FORMAT_H_

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"

#include "model/chat/chat_encoding.h"
#include "model/chat/prompt_writer.h"

namespace tessera::model {

// Where the assistant's token stands.
enum class HeaderPlace {
  kAfterUser,     // V3: after each user message
  kBeforeAnswer,  // R1: before each answer that does not follow a tool result
  kBetween,       // V3.1: between a user message and its answer
};

struct CallFormat {
  std::string_view name;
  HeaderPlace header = HeaderPlace::kBetween;
  bool has_reasoning = false;

  // After the assistant's token: of an answer to be generated, with and without
  // reasoning, and of one in the conversation.
  std::string_view open_thinking{};
  std::string_view open_plain{};
  std::string_view open_past{};

  // One call, within its tokens: before_name NAME after_name ARGUMENTS after_arguments.
  std::string_view before_name{};
  std::string_view after_name{};
  std::string_view after_arguments{};
  std::string_view between_calls{};

  // Around the results of one turn.
  std::string_view results_open{};
  std::string_view results_close{};
  std::string_view between_results{};

  // The last line of the tools section.
  std::string_view several_calls_text{};
};

extern const CallFormat kV3Format;
extern const CallFormat kR1Format;
extern const CallFormat kV31Format;

// The instructions after the tools of a request, with an example of a call.
std::string MakeCallsText(const CallFormat& format);

// Writes the block of an assistant message. Arguments stand as they are.
void WriteCalls(const CallFormat& format, const std::vector<ToolCall>& calls,
                PromptWriter* writer);

// Reads a whole block from the start of `text` and cuts it off `text`, strictly: exactly
// as WriteCalls writes it, with arguments that are JSON. kInvalidArgument says what was
// expected. The ids of the calls are empty.
absl::StatusOr<std::vector<ToolCall>> ReadCalls(const CallFormat& format,
                                                std::string_view* text);

// Reads what stands within the tokens of one call, tolerantly: whitespace counts nowhere,
// a fence around the arguments may be missing. `is_open`: the generation ended here, the
// arguments are as far as they came. Nothing if there is no whole name.
std::optional<ToolCall> ReadCallText(const CallFormat& format, std::string_view text,
                                     bool is_open);

}  // namespace tessera::model

#endif  // TESSERA_MODEL_CHAT_CALL_FORMAT_H_
