// Messages, system text, tools and thinking options of Anthropic's dialect as a
// ChatConversation. Reads JSON, knows no sampling and no answer.
#ifndef TESSERA_COORDINATOR_API_ANTHROPIC_ANTHROPIC_CONVERSATION_H_
#define TESSERA_COORDINATOR_API_ANTHROPIC_ANTHROPIC_CONVERSATION_H_

#include <optional>
#include <string_view>

#include "nlohmann/json_fwd.hpp"

#include "coordinator/api/api_context.h"
#include "coordinator/api/chat/chat_prompt.h"
#include "coordinator/api/errors.h"

namespace tessera::coordinator {

// Reads `system`, `messages`, `tools`, `tool_choice`, `thinking` and `output_config` of
// `body`, which was parsed from `text`.
//
// Blocks become messages in their order: neighbouring text blocks of a user are one
// message, each tool_result is a tool's message, an assistant's thinking, text and
// tool_use blocks are one message. A last message of the assistant is continued. Errors
// name their field: a block of a kind that is no text (images, documents, tools that the
// service would run), and whatever is missing or of a wrong type.
std::optional<ApiError> ReadAnthropicConversation(const ApiContext& context,
                                                  const nlohmann::json& body,
                                                  std::string_view text,
                                                  ChatConversation* out);

}  // namespace tessera::coordinator

#endif  // TESSERA_COORDINATOR_API_ANTHROPIC_ANTHROPIC_CONVERSATION_H_
