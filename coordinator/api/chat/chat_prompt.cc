#include "coordinator/api/chat/chat_prompt.h"

#include <string>

namespace tessera::coordinator {

MessageRules RulesOf(const ApiContext& context) {
  return {.max_messages = context.options.max_messages,
          .max_tools = context.options.max_tools,
          .max_text_bytes = context.max_prompt_bytes,
          .model_name = context.model_name(),
          .has_tool_namespaces = context.chat->traits().has_tool_namespaces};
}

std::optional<ApiError> CheckTextBytes(const std::vector<model::ChatMessage>& messages,
                                       const MessageRules& rules,
                                       std::string_view field) {
  size_t bytes = 0;
  for (const model::ChatMessage& message : messages) {
    bytes += message.content.size();
  }
  if (bytes > rules.max_text_bytes) {
    return BadRequestError(field, "the messages are longer than the context",
                           "context_length_exceeded");
  }
  return std::nullopt;
}

bool ContinueLastMessage(ChatConversation* conversation) {
  model::ChatMessage& last = conversation->messages.back();
  if (last.role != "assistant") {
    return false;
  }
  last.without_eos = true;
  conversation->options.add_generation_prompt = false;
  return true;
}

std::optional<ApiError> EncodeConversation(const ApiContext& context,
                                           const ChatConversation& conversation,
                                           std::string_view field,
                                           model::EncodedChat* out) {
  auto encoded = context.chat->Encode(conversation.messages, conversation.options);
  if (!encoded.ok()) {
    if (encoded.status().code() == absl::StatusCode::kInvalidArgument) {
      return BadRequestError(field, std::string(encoded.status().message()));
    }
    return FromEngineStatus(encoded.status());
  }
  *out = *std::move(encoded);
  return std::nullopt;
}

}  // namespace tessera::coordinator
