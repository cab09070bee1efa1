#include "coordinator/api/openai_chat.h"

#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "fmt/format.h"
#include "nlohmann/json.hpp"

#include "coordinator/api/chat/chat_prompt.h"
#include "coordinator/api/chat/chat_tools.h"
#include "coordinator/api/chat/thinking_fields.h"
#include "coordinator/api/chat_messages.h"
#include "coordinator/api/chat_responder.h"
#include "coordinator/api/generation.h"
#include "coordinator/api/json_fields.h"
#include "coordinator/api/sampling_fields.h"

namespace tessera::coordinator {
namespace {

using nlohmann::json;

// chat_template_kwargs: the scalar keys of the encoding, nothing else.
std::optional<ApiError> ReadTemplateArguments(const json& arguments,
                                              const model::ChatTraits& traits,
                                              ThinkingRequest* out) {
  FieldError error;
  JsonFields fields(arguments, &error, "chat_template_kwargs.");
  for (const auto& [key, value] : arguments.items()) {
    if (key == "thinking" || key == "enable_thinking") {
      out->thinking = fields.Bool(key);
    } else if (key == "reasoning_effort") {
      if (auto bad =
              ReadEffort("chat_template_kwargs.reasoning_effort", value, traits, out)) {
        return bad;
      }
    } else {
      return UnsupportedError(
          "chat_template_kwargs",
          "chat_template_kwargs may hold thinking, enable_thinking and "
          "reasoning_effort only");
    }
  }
  if (!fields.ok()) {
    return FromFieldError(error);
  }
  return std::nullopt;
}

std::optional<ApiError> ReadThinking(const ApiContext& context, const json& body,
                                     model::ChatOptions* options) {
  FieldError error;
  JsonFields fields(body, &error);
  ThinkingRequest read;
  const json* arguments = fields.Object("chat_template_kwargs");
  const json* thinking = fields.Object("thinking");
  if (!fields.ok()) {
    return FromFieldError(error);
  }
  const model::ChatTraits traits = context.chat->traits();
  if (arguments != nullptr) {
    if (auto bad = ReadTemplateArguments(*arguments, traits, &read)) {
      return bad;
    }
  }
  if (const auto effort = body.find("reasoning_effort"); effort != body.end()) {
    if (auto bad = ReadEffort("reasoning_effort", *effort, traits, &read)) {
      return bad;
    }
  }
  if (thinking != nullptr) {
    if (auto bad = ReadThinkingObject(*thinking, &read)) {
      return bad;
    }
  }
  SettleThinking(read, context.options.default_thinking, options);
  return std::nullopt;
}

// The last message is continued instead of answered: vLLM's continue_final_message,
// DeepSeek's prefix.
std::optional<ApiError> ReadContinuation(JsonFields* fields, const FieldError& error,
                                         ChatConversation* conversation) {
  const bool continued = fields->Bool("continue_final_message").value_or(false);
  conversation->options.add_generation_prompt =
      fields->Bool("add_generation_prompt").value_or(true);
  if (!fields->ok()) {
    return FromFieldError(error);
  }
  const std::vector<model::ChatMessage>& messages = conversation->messages;
  for (size_t i = 0; i + 1 < messages.size(); ++i) {
    if (messages[i].without_eos) {
      return BadRequestError(fmt::format("messages[{}].prefix", i),
                             "only the last message can be continued");
    }
  }
  if ((continued || messages.back().without_eos) && !ContinueLastMessage(conversation)) {
    return BadRequestError("messages", "only an assistant message can be continued");
  }
  return std::nullopt;
}

// logprobs and top_logprobs of the chat dialect as RequestSpec's one number.
std::optional<ApiError> ReadLogprobs(JsonFields* fields, const FieldError& error,
                                     RequestSpec* spec) {
  const bool logprobs = fields->Bool("logprobs").value_or(false);
  const auto top = fields->Integer("top_logprobs");
  if (!fields->ok()) {
    return FromFieldError(error);
  }
  if (top.has_value() && !logprobs && *top != 0) {
    return BadRequestError("top_logprobs", "top_logprobs needs logprobs: true");
  }
  if (logprobs) {
    spec->logprobs = top.value_or(0);
  }
  return std::nullopt;
}

// The validator's field names in the words of this dialect.
ApiError InChatWords(FieldError error, bool max_completion_tokens) {
  if (error.param == "prompt") {
    error.param = "messages";
  } else if (error.param == "logprobs") {
    error.param = "top_logprobs";
  } else if (error.param == "max_tokens" && max_completion_tokens) {
    error.param = "max_completion_tokens";
  }
  return FromFieldError(error);
}

// A chat request that passed every check.
struct ChatRequest {
  ChatAnswer answer;
  std::vector<ValidatedRequest> requests;  // one
};

std::optional<ApiError> ReadChat(const ApiContext& context, const HttpRequest& request,
                                 ChatRequest* out) {
  json body;
  if (auto error = ReadBody(request, context, &body)) {
    return error;
  }
  RequestSpec spec;
  ChatAnswer& answer = out->answer;
  if (auto error = ReadSharedFields(body, request, context, &spec, &answer.output)) {
    return error;
  }
  FieldError error;
  JsonFields fields(body, &error);
  const auto max_completion_tokens = fields.Integer("max_completion_tokens");
  if (max_completion_tokens.has_value()) {
    spec.max_tokens = max_completion_tokens;
  }
  if (auto bad = ReadLogprobs(&fields, error, &spec)) {
    return bad;
  }
  if (fields.Has("truncate_prompt_tokens")) {
    return UnsupportedError("truncate_prompt_tokens",
                            "a conversation can't be cut by tokens: send fewer messages");
  }
  model::EncodedChat prompt;
  ToolDemand tools;
  if (auto bad = ReadChatPrompt(context, body, request.body, &prompt, &tools)) {
    return bad;
  }
  if (auto bad =
          ConstrainAnswer(context, request.body, tools, prompt.in_reasoning, &spec)) {
    return bad;
  }
  answer.id = context.ids->NextId("chatcmpl-");
  answer.created = absl::ToUnixSeconds(context.clock->Now());
  answer.logprobs = spec.logprobs.has_value();
  answer.prompt_logprobs = spec.prompt_logprobs.has_value();
  answer.thinking = prompt.in_reasoning;
  answer.prompt_ids = prompt.ids;
  spec.request_id = answer.id;
  spec.prompt_ids = std::move(prompt.ids);
  // The parser must see the tags of reasoning and tool calls, which a checkpoint may mark
  // special.
  spec.skip_special_tokens = false;
  auto validated =
      ValidatedRequest::Create(std::move(spec), context.options.limits,
                               context.clock->Now(), context.ids->NextSeed(), &error);
  if (!validated.ok()) {
    return InChatWords(error, max_completion_tokens.has_value());
  }
  answer.num_choices = validated->num_choices();
  out->requests.push_back(*std::move(validated));
  return std::nullopt;
}

}  // namespace

std::optional<ApiError> ReadChatPrompt(const ApiContext& context, const json& body,
                                       std::string_view text, model::EncodedChat* out,
                                       ToolDemand* tools) {
  const MessageRules rules = RulesOf(context);
  ChatConversation conversation;
  if (auto error = ReadMessages(body, rules, &conversation.messages)) {
    return error;
  }
  if (auto error = CheckTextBytes(conversation.messages, rules, "messages")) {
    return error;
  }
  if (auto error = ReadTools(body, text, rules, &conversation.messages, tools)) {
    return error;
  }
  if (auto error = ReadThinking(context, body, &conversation.options)) {
    return error;
  }
  FieldError error;
  JsonFields fields(body, &error);
  if (auto bad = ReadContinuation(&fields, error, &conversation)) {
    return bad;
  }
  return EncodeConversation(context, conversation, "messages", out);
}

void HandleChat(const ApiContext& context, const HttpRequest& request,
                std::shared_ptr<ResponseWriter> writer) {
  ChatRequest read;
  if (auto error = ReadChat(context, request, &read)) {
    writer->Respond(ErrorResponse(*error));
    return;
  }
  auto responder =
      std::make_unique<ChatResponder>(&context, writer, std::move(read.answer));
  StartGeneration(&context, std::move(writer), std::move(read.requests),
                  std::move(responder));
}

}  // namespace tessera::coordinator
