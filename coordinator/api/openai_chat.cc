#include "coordinator/api/openai_chat.h"

#include <algorithm>
#include <iterator>
#include <string>
#include <utility>
#include <vector>

#include "fmt/format.h"
#include "nlohmann/json.hpp"

#include "coordinator/api/chat_messages.h"
#include "coordinator/api/chat_responder.h"
#include "coordinator/api/generation.h"
#include "coordinator/api/json_fields.h"
#include "coordinator/api/sampling_fields.h"

namespace tessera::coordinator {
namespace {

using model::ReasoningEffort;
using nlohmann::json;

// What a request says about thinking; absent parts are the server's choice.
struct ThinkingRequest {
  std::optional<bool> thinking;
  std::optional<ReasoningEffort> effort;
  int32_t effort_number = 0;  // beside an effort that is not kNone; 0: none
};

// A number, for models that are trained with numbers.
std::optional<ApiError> ParseEffortNumber(std::string_view field, int64_t number,
                                          const model::ChatTraits& traits,
                                          ThinkingRequest* out) {
  constexpr int64_t kMaxNumber = 100;
  if (!traits.has_effort_numbers) {
    return UnsupportedError(
        field, "this model knows efforts by name only: none, low, high and max");
  }
  if (number < 1 || number > kMaxNumber) {
    return BadRequestError(field, "reasoning_effort must be a name or 1 to 100");
  }
  out->effort = ReasoningEffort::kHigh;
  out->effort_number = static_cast<int32_t>(number);
  return std::nullopt;
}

// The efforts of OpenAI and of DeepSeek on the three that models are trained with.
std::optional<ApiError> ParseEffortName(std::string_view field, std::string_view name,
                                        ThinkingRequest* out) {
  struct Row {
    std::string_view name;
    ReasoningEffort effort;
  };
  static constexpr Row kRows[] = {
      {"none", ReasoningEffort::kNone}, {"minimal", ReasoningEffort::kLow},
      {"low", ReasoningEffort::kLow},   {"medium", ReasoningEffort::kHigh},
      {"high", ReasoningEffort::kHigh}, {"xhigh", ReasoningEffort::kHigh},
      {"max", ReasoningEffort::kMax},   {"ultra", ReasoningEffort::kMax},
  };
  const auto* row = std::find_if(std::begin(kRows), std::end(kRows),
                                 [&](const Row& r) { return r.name == name; });
  if (row == std::end(kRows)) {
    return BadRequestError(
        field,
        "reasoning_effort must be none, minimal, low, medium, high, xhigh, "
        "max or ultra");
  }
  out->effort = row->effort;
  out->effort_number = 0;
  return std::nullopt;
}

// A name or a number; null is as if it were absent.
std::optional<ApiError> ReadEffort(std::string_view field, const json& value,
                                   const model::ChatTraits& traits,
                                   ThinkingRequest* out) {
  if (value.is_null()) {
    return std::nullopt;
  }
  if (value.is_string()) {
    return ParseEffortName(field, value.get_ref<const std::string&>(), out);
  }
  const std::optional<int64_t> number = JsonInteger(value);
  if (!number.has_value()) {
    return BadRequestError(field, "reasoning_effort must be a name or a whole number");
  }
  return ParseEffortNumber(field, *number, traits, out);
}

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

// thinking: {"type": "enabled" | "disabled"}, DeepSeek's spelling.
std::optional<ApiError> ReadThinkingObject(const json& thinking, ThinkingRequest* out) {
  const auto type = thinking.find("type");
  if (type == thinking.end() || (*type != "enabled" && *type != "disabled")) {
    return BadRequestError("thinking.type", "thinking.type must be enabled or disabled");
  }
  out->thinking = *type == "enabled";
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
  // An effort alone asks for thinking; a plain yes or no wins over it.
  const bool effort_asks =
      read.effort.value_or(ReasoningEffort::kNone) != ReasoningEffort::kNone;
  options->thinking = read.thinking.value_or(
      read.effort.has_value() ? effort_asks : context.options.default_thinking);
  options->effort = !options->thinking ? ReasoningEffort::kNone
                    : effort_asks      ? *read.effort
                                       : ReasoningEffort::kHigh;
  options->effort_number = options->thinking ? read.effort_number : 0;
  return std::nullopt;
}

// The last message is continued instead of answered: vLLM's continue_final_message,
// DeepSeek's prefix.
std::optional<ApiError> ReadContinuation(JsonFields* fields, const FieldError& error,
                                         std::vector<model::ChatMessage>* messages,
                                         model::ChatOptions* options) {
  const bool continued = fields->Bool("continue_final_message").value_or(false);
  options->add_generation_prompt = fields->Bool("add_generation_prompt").value_or(true);
  if (!fields->ok()) {
    return FromFieldError(error);
  }
  model::ChatMessage& last = messages->back();
  if (continued || last.without_eos) {
    if (last.role != "assistant") {
      return BadRequestError("messages", "only an assistant message can be continued");
    }
    last.without_eos = true;
    options->add_generation_prompt = false;
  }
  for (size_t i = 0; i + 1 < messages->size(); ++i) {
    if ((*messages)[i].without_eos) {
      return BadRequestError(fmt::format("messages[{}].prefix", i),
                             "only the last message can be continued");
    }
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
  model::EncodedChat prompt;
  if (auto bad = ReadChatPrompt(context, body, &prompt)) {
    return bad;
  }
  answer.id = context.ids->NextId("chatcmpl-");
  answer.created = absl::ToUnixSeconds(context.clock->Now());
  answer.logprobs = spec.logprobs.has_value();
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
                                       model::EncodedChat* out) {
  const MessageRules rules = {
      .max_messages = context.options.max_messages,
      .max_tools = context.options.max_tools,
      .max_text_bytes = context.max_prompt_bytes,
      .model_name = context.model_name(),
      .has_tool_namespaces = context.chat->traits().has_tool_namespaces};
  std::vector<model::ChatMessage> messages;
  model::ChatOptions options;
  if (auto error = ReadMessages(body, rules, &messages)) {
    return error;
  }
  if (auto error = ReadTools(body, rules, &messages)) {
    return error;
  }
  if (auto error = ReadThinking(context, body, &options)) {
    return error;
  }
  FieldError error;
  JsonFields fields(body, &error);
  if (auto bad = ReadContinuation(&fields, error, &messages, &options)) {
    return bad;
  }
  auto encoded = context.chat->Encode(messages, options);
  if (!encoded.ok()) {
    if (encoded.status().code() == absl::StatusCode::kInvalidArgument) {
      return BadRequestError("messages", std::string(encoded.status().message()));
    }
    return FromEngineStatus(encoded.status());
  }
  *out = *std::move(encoded);
  return std::nullopt;
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
