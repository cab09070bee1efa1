// The conversation of OpenAI's responses dialect: instructions, input items, tools and
// reasoning options as a ChatConversation. Reads JSON, knows no sampling and no answer.
#ifndef TESSERA_COORDINATOR_API_RESPONSES_RESPONSE_INPUT_H_
#define TESSERA_COORDINATOR_API_RESPONSES_RESPONSE_INPUT_H_

#include <optional>
#include <string_view>

#include "nlohmann/json_fwd.hpp"

#include "coordinator/api/api_context.h"
#include "coordinator/api/chat/chat_prompt.h"
#include "coordinator/api/errors.h"

namespace tessera::coordinator {

// Reads `instructions`, `input`, `tools`, `tool_choice` and `reasoning` of `body`, which
// was parsed from `text`.
//
// Input is a text or items. A message item is a message; reasoning, an assistant's text
// and function calls that follow each other in that order are one message of the
// assistant, as the model wrote them; a function_call_output is a tool's message. Errors
// name their field: items and parts of a kind that is no text, references to stored
// items, tools that the service would run, a tool_choice that forces a call, and whatever
// is missing or of a wrong type.
std::optional<ApiError> ReadResponseConversation(const ApiContext& context,
                                                 const nlohmann::json& body,
                                                 std::string_view text,
                                                 ChatConversation* out);

}  // namespace tessera::coordinator

#endif  // TESSERA_COORDINATOR_API_RESPONSES_RESPONSE_INPUT_H_
