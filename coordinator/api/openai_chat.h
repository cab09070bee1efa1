// POST /v1/chat/completions: the request side. Messages, tools and thinking options of
// the OpenAI dialect with the additions of DeepSeek and vLLM become prompt ids through
// the model's ChatEncoding; chat_responder turns the generated text back into a message.
#ifndef TESSERA_COORDINATOR_API_OPENAI_CHAT_H_
#define TESSERA_COORDINATOR_API_OPENAI_CHAT_H_

#include <memory>
#include <optional>
#include <string_view>

#include "nlohmann/json_fwd.hpp"

#include "coordinator/api/api_context.h"
#include "coordinator/api/chat/chat_grammar.h"
#include "coordinator/api/errors.h"
#include "coordinator/api/http_message.h"

namespace tessera::coordinator {

// Answers through `writer`, an error included; returns once the request was handed to the
// engine.
void HandleChat(const ApiContext& context, const HttpRequest& request,
                std::shared_ptr<ResponseWriter> writer);

// Reads messages, tools and thinking options of `body`, which was parsed from `text`, and
// encodes them: also for /tokenize's chat form. `tools` (out): what the answer may call.
// Every error names its field.
std::optional<ApiError> ReadChatPrompt(const ApiContext& context,
                                       const nlohmann::json& body, std::string_view text,
                                       model::EncodedChat* out, ToolDemand* tools);

}  // namespace tessera::coordinator

#endif  // TESSERA_COORDINATOR_API_OPENAI_CHAT_H_
