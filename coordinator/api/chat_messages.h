// Messages of OpenAI's chat, as the model's ChatEncoding wants them. Reads JSON, knows no
// sampling and no answer.
#ifndef TESSERA_COORDINATOR_API_CHAT_MESSAGES_H_
#define TESSERA_COORDINATOR_API_CHAT_MESSAGES_H_

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "nlohmann/json_fwd.hpp"

#include "coordinator/api/errors.h"
#include "model/chat/chat_encoding.h"

namespace tessera::coordinator {

struct MessageRules {
  int32_t max_messages = 1000;
  int32_t max_tools = 128;
  // Text of all messages together; more can't fit the context.
  size_t max_text_bytes = 0;
  // Named where something is refused that another model may take.
  std::string_view model_name{};
  // Whether tools may be called `namespace::name`.
  bool has_tool_namespaces = false;
};

// A role in the words of the encodings: a function's answer is a tool's, and a developer
// message is a system message, as in DeepSeek's API. Unknown ones stay as they are.
std::string EncodingRole(std::string role);

// The array `messages` of `body`. Errors: not an array, none or too many.
std::optional<ApiError> FindMessages(const nlohmann::json& body,
                                     const MessageRules& rules,
                                     const nlohmann::json** messages);

// Reads `messages` of `body`. Content is a string or text parts, which become blocks of
// one message. Errors: none or too many messages, a wrong type, a part that is no text
// (images too: there is no vision tower here).
std::optional<ApiError> ReadMessages(const nlohmann::json& body,
                                     const MessageRules& rules,
                                     std::vector<model::ChatMessage>* out);

}  // namespace tessera::coordinator

#endif  // TESSERA_COORDINATOR_API_CHAT_MESSAGES_H_
