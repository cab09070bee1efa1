#include "coordinator/api/grpc/api_request_convert.h"

#include <optional>
#include <string>
#include <utility>

#include "nlohmann/json.hpp"

#include "coordinator/api/chat_messages.h"

namespace tessera::coordinator {
namespace {

std::optional<GrammarSpec> ReadGrammar(const api::v1::SamplingOptions& options) {
  using Options = api::v1::SamplingOptions;
  GrammarSpec spec;
  spec.field = "grammar";
  switch (options.grammar_case()) {
    case Options::kJsonSchema:
      spec.kind = GrammarKind::kJsonSchema;
      spec.text = options.json_schema();
      return spec;
    case Options::kJsonObject:
      return options.json_object() ? std::optional(spec) : std::nullopt;
    case Options::kRegex:
      spec.kind = GrammarKind::kRegex;
      spec.text = options.regex();
      return spec;
    case Options::kEbnf:
      spec.kind = GrammarKind::kEbnf;
      spec.text = options.ebnf();
      return spec;
    case Options::kChoices: {
      spec.kind = GrammarKind::kChoice;
      nlohmann::json texts = nlohmann::json::array();
      for (const std::string& text : options.choices().texts()) {
        texts.push_back(text);
      }
      spec.text = texts.dump();
      return spec;
    }
    case Options::kStructuralTag:
      spec.kind = GrammarKind::kStructuralTag;
      spec.text = options.structural_tag();
      return spec;
    case Options::GRAMMAR_NOT_SET:
      break;
  }
  return std::nullopt;
}

}  // namespace

void ReadSamplingOptions(const api::v1::SamplingOptions& options, RequestSpec* spec) {
  const auto read = [](bool has, auto value, auto* out) {
    if (has) {
      *out = value;
    }
  };
  read(options.has_max_tokens(), options.max_tokens(), &spec->max_tokens);
  read(options.has_min_tokens(), options.min_tokens(), &spec->min_tokens);
  read(options.has_temperature(), options.temperature(), &spec->temperature);
  read(options.has_top_p(), options.top_p(), &spec->top_p);
  read(options.has_top_k(), options.top_k(), &spec->top_k);
  read(options.has_min_p(), options.min_p(), &spec->min_p);
  read(options.has_repetition_penalty(), options.repetition_penalty(),
       &spec->repetition_penalty);
  read(options.has_presence_penalty(), options.presence_penalty(),
       &spec->presence_penalty);
  read(options.has_frequency_penalty(), options.frequency_penalty(),
       &spec->frequency_penalty);
  read(options.has_seed(), options.seed(), &spec->seed);
  read(options.has_n(), options.n(), &spec->n);
  read(options.has_logprobs(), options.logprobs(), &spec->logprobs);
  spec->stop.assign(options.stop().begin(), options.stop().end());
  spec->stop_token_ids.assign(options.stop_token_ids().begin(),
                              options.stop_token_ids().end());
  spec->logit_bias.assign(options.logit_bias().begin(), options.logit_bias().end());
  spec->ignore_eos = options.ignore_eos();
  spec->include_stop_text = options.include_stop_text();
  spec->skip_special_tokens =
      !options.has_skip_special_tokens() || options.skip_special_tokens();
  spec->priority = options.priority();
  spec->grammar = ReadGrammar(options);
  for (const api::v1::TokenIds& word : options.bad_words()) {
    spec->bad_words.emplace_back(word.ids().begin(), word.ids().end());
  }
  if (options.allowed_token_ids_size() > 0) {
    spec->allowed_token_ids.emplace(options.allowed_token_ids().begin(),
                                    options.allowed_token_ids().end());
  }
  read(options.has_prompt_logprobs(), options.prompt_logprobs(), &spec->prompt_logprobs);
}

std::vector<model::ChatMessage> ReadChatMessages(const api::v1::ChatRequest& request) {
  std::vector<model::ChatMessage> messages;
  messages.reserve(static_cast<size_t>(request.messages_size()));
  for (const api::v1::ChatMessage& in : request.messages()) {
    model::ChatMessage out;
    out.role = EncodingRole(in.role());
    out.content = in.content();
    out.reasoning_content = in.reasoning_content();
    out.tool_call_id = in.tool_call_id();
    for (const api::v1::ToolCall& call : in.tool_calls()) {
      out.tool_calls.push_back({call.id(), call.name(), call.arguments()});
    }
    messages.push_back(std::move(out));
  }
  return messages;
}

model::ChatOptions ReadChatOptions(const ApiContext& context,
                                   const api::v1::ChatRequest& request) {
  model::ChatOptions options;
  const bool effort_given =
      request.reasoning_effort() != api::v1::REASONING_EFFORT_UNSPECIFIED ||
      request.reasoning_effort_number() != 0;
  options.thinking = request.has_thinking()
                         ? request.thinking()
                         : effort_given || context.options.default_thinking;
  if (!options.thinking) {
    return options;
  }
  switch (request.reasoning_effort()) {
    case api::v1::REASONING_EFFORT_LOW:
      options.effort = model::ReasoningEffort::kLow;
      break;
    case api::v1::REASONING_EFFORT_MAX:
      options.effort = model::ReasoningEffort::kMax;
      break;
    default:
      options.effort = model::ReasoningEffort::kHigh;
  }
  options.effort_number = request.reasoning_effort_number();
  return options;
}

namespace {

// The best tokens of a place, into `out`, which has a field for them.
template <typename Message>
void WriteTop(const std::vector<proto::TokenLogprob>& best, Message* out) {
  for (const proto::TokenLogprob& top : best) {
    api::v1::TokenLogprob* one = out->add_top_logprobs();
    one->set_token(top.token);
    one->set_logprob(top.logprob);
  }
}

}  // namespace

void WriteToken(const TokenEvent& event, api::v1::GeneratedToken* out) {
  out->set_choice(event.choice);
  out->set_index(event.index);
  out->set_token(event.token);
  out->set_text(event.text);
  out->set_logprob(event.logprob);
  WriteTop(event.top, out);
  for (const proto::SampledToken& scored : event.prompt) {
    api::v1::PromptToken* one = out->add_prompt();
    one->set_token(scored.token);
    one->set_logprob(scored.logprob);
    WriteTop(scored.top, one);
  }
}

void WriteFinished(const ChoiceFinished& event, api::v1::ChoiceFinished* out) {
  out->set_choice(event.choice);
  out->set_reason(event.reason == FinishReason::kLength ? api::v1::FINISH_REASON_LENGTH
                                                        : api::v1::FINISH_REASON_STOP);
  out->set_text(event.text);
  if (event.stop_string.has_value()) {
    out->set_stop_string(*event.stop_string);
  }
  if (event.stop_token.has_value()) {
    out->set_stop_token(*event.stop_token);
  }
}

void WriteUsage(const RequestUsage& usage, api::v1::Usage* out) {
  out->set_prompt_tokens(usage.prompt_tokens);
  out->set_cached_prompt_tokens(usage.cached_prompt_tokens);
  out->set_host_cached_prompt_tokens(usage.host_cached_prompt_tokens);
  out->set_disk_cached_prompt_tokens(usage.disk_cached_prompt_tokens);
  out->set_completion_tokens(usage.completion_tokens);
}

void WriteDelta(const model::TurnParser::Delta& delta, int32_t choice, RequestIds* ids,
                api::v1::ChatDelta* out) {
  out->set_choice(choice);
  out->set_reasoning(delta.reasoning);
  out->set_content(delta.content);
  for (const model::ToolCall& call : delta.tool_calls) {
    api::v1::ToolCall* one = out->add_tool_calls();
    one->set_id(ids->NextId("call_"));
    one->set_name(call.name);
    one->set_arguments(call.arguments);
  }
}

}  // namespace tessera::coordinator
