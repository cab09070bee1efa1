// The last steps from a chat request to a prompt, the same in every dialect: the text is
// bounded, an answer may be continued, and the model's encoding writes the ids. The
// dialects read their own JSON before that.
#ifndef TESSERA_COORDINATOR_API_CHAT_CHAT_PROMPT_H_
#define TESSERA_COORDINATOR_API_CHAT_CHAT_PROMPT_H_

#include <optional>
#include <string_view>
#include <vector>

#include "coordinator/api/api_context.h"
#include "coordinator/api/chat/chat_grammar.h"
#include "coordinator/api/chat_messages.h"
#include "coordinator/api/errors.h"
#include "model/chat/chat_encoding.h"

namespace tessera::coordinator {

// A conversation that was read, in the words of the encodings.
struct ChatConversation {
  std::vector<model::ChatMessage> messages;
  model::ChatOptions options;
  ToolDemand tools;
};

// What `context` allows messages and tools to be.
MessageRules RulesOf(const ApiContext& context);

// Refuses text that can't fit the context, before it is tokenised. `field` is named.
std::optional<ApiError> CheckTextBytes(const std::vector<model::ChatMessage>& messages,
                                       const MessageRules& rules, std::string_view field);

// The last message is continued instead of answered. False: it is none of the
// assistant's.
bool ContinueLastMessage(ChatConversation* conversation);

// Prompt ids. What the encoding refuses is an error of `field`. Blocks for the time of
// tokenisation.
std::optional<ApiError> EncodeConversation(const ApiContext& context,
                                           const ChatConversation& conversation,
                                           std::string_view field,
                                           model::EncodedChat* out);

}  // namespace tessera::coordinator

#endif  // TESSERA_COORDINATOR_API_CHAT_CHAT_PROMPT_H_
