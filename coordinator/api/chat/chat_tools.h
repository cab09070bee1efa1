// Tools of the chat dialects. OpenAI's chat nests a function in each tool; Anthropic and
// OpenAI's responses put its fields at the top ("flat"). All become the JSON array of
// OpenAI tools that the encodings show to the model, with schemas as the client wrote
// them: `text` is always the text that `body` was parsed from.
#ifndef TESSERA_COORDINATOR_API_CHAT_CHAT_TOOLS_H_
#define TESSERA_COORDINATOR_API_CHAT_CHAT_TOOLS_H_

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "nlohmann/json_fwd.hpp"

#include "coordinator/api/chat/chat_grammar.h"
#include "coordinator/api/chat_messages.h"
#include "coordinator/api/errors.h"
#include "model/chat/chat_encoding.h"

namespace tessera::coordinator {

// Reads `tools` and `tool_choice` of OpenAI's chat and shows the tools to the model.
// tool_choice "none" drops them; `demand` says what the grammar of the answer must hold.
std::optional<ApiError> ReadTools(const nlohmann::json& body, std::string_view text,
                                  const MessageRules& rules,
                                  std::vector<model::ChatMessage>* messages,
                                  ToolDemand* demand);

// How a dialect spells flat tools.
struct FlatTools {
  std::string_view schema_field;  // "input_schema", "parameters"
  std::string_view type;          // of a function of the client: "custom", "function"
  bool needs_type = false;
};

// Reads flat `tools` into `tools_json`, which stays empty where there are none. Errors:
// too many tools, a bad name, a schema that is no object, and a tool of another type,
// which the service itself would have to run.
std::optional<ApiError> ReadFlatTools(const nlohmann::json& body, std::string_view text,
                                      const FlatTools& shape, const MessageRules& rules,
                                      std::string* tools_json);

// tool_choice and parallel_tool_calls in OpenAI's words: none, auto, required, or a
// function by name, nested ({type, function: {name}}) or flat ({type, name}).
std::optional<ApiError> ReadToolChoice(const nlohmann::json& body, ToolDemand* demand);

// Hands tools to the first system message, which it makes where there is none. No tools,
// an empty text: no change.
void ShowTools(std::string tools_json, std::vector<model::ChatMessage>* messages);

}  // namespace tessera::coordinator

#endif  // TESSERA_COORDINATOR_API_CHAT_CHAT_TOOLS_H_
