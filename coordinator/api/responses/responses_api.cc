#include "coordinator/api/responses/responses_api.h"

#include <algorithm>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "nlohmann/json.hpp"

#include "coordinator/api/chat/chat_prompt.h"
#include "coordinator/api/errors.h"
#include "coordinator/api/generation.h"
#include "coordinator/api/grammar_fields.h"
#include "coordinator/api/json_fields.h"
#include "coordinator/api/responses/response_answer.h"
#include "coordinator/api/responses/response_input.h"
#include "coordinator/api/sampling_fields.h"

namespace tessera::coordinator {
namespace {

using nlohmann::json;

// A request that passed every check.
struct ResponsesRequest {
  model::EncodedChat prompt;
  std::vector<ValidatedRequest> requests;  // one
  json settings;                           // of the response object
  bool stream = false;
  bool logprobs = false;
};

// What only a service with memory could do.
std::optional<ApiError> RefuseMemory(const JsonFields& fields) {
  if (fields.Has("previous_response_id")) {
    ApiError error = BadRequestError(
        "previous_response_id",
        "responses are not stored here: send the whole conversation as input",
        "previous_response_not_found");
    error.status = 404;
    return error;
  }
  if (fields.Has("conversation")) {
    return UnsupportedError(
        "conversation",
        "conversations are not stored here: send the whole conversation as input");
  }
  if (fields.Has("prompt")) {
    return UnsupportedError("prompt", "prompt templates are not stored here");
  }
  return std::nullopt;
}

// Modes that would change the answer and that this build lacks.
std::optional<ApiError> RefuseModes(const json& body) {
  FieldError error;
  JsonFields fields(body, &error);
  const bool background = fields.Bool("background").value_or(false);
  const std::string truncation = fields.String("truncation").value_or("disabled");
  fields.Object("text");      // its format is read as a grammar
  fields.Object("metadata");  // checked here, echoed later
  if (!fields.ok()) {
    return FromFieldError(error);
  }
  if (background) {
    return UnsupportedError("background", "background responses are not supported");
  }
  if (truncation != "disabled") {
    return UnsupportedError("truncation", "truncation must be disabled");
  }
  return std::nullopt;
}

// Log-probabilities, which are asked for by name or by their number.
std::optional<ApiError> ReadLogprobs(const json& body, RequestSpec* spec) {
  FieldError error;
  JsonFields fields(body, &error);
  const auto top = fields.Integer("top_logprobs");
  const json* include = fields.Array("include");
  if (!fields.ok()) {
    return FromFieldError(error);
  }
  spec->logprobs.reset();
  const bool included =
      include != nullptr && std::find(include->begin(), include->end(),
                                      "message.output_text.logprobs") != include->end();
  if (included || top.value_or(0) != 0) {
    spec->logprobs = top.value_or(0);
  }
  return std::nullopt;
}

// The request's own words that the response object repeats, and what never changes.
json SettingsOf(const ApiContext& context, const json& body, const RequestSpec& spec,
                const model::ChatOptions& options) {
  const auto echo = [&body](const char* name, json absent) {
    const auto found = body.find(name);
    return found == body.end() || found->is_null() ? std::move(absent) : *found;
  };
  return {{"id", spec.request_id},
          {"created_at", absl::ToUnixSeconds(context.clock->Now())},
          {"model", context.model_name()},
          {"instructions", echo("instructions", nullptr)},
          {"max_output_tokens", echo("max_output_tokens", nullptr)},
          {"metadata", echo("metadata", json::object())},
          {"parallel_tool_calls", echo("parallel_tool_calls", true)},
          {"previous_response_id", nullptr},
          {"reasoning",
           echo("reasoning", {{"effort", options.thinking ? json("high") : json("none")},
                              {"summary", nullptr}})},
          {"service_tier", "default"},
          {"store", false},
          {"background", false},
          {"temperature", spec.temperature.value_or(1.0)},
          {"text", echo("text", {{"format", {{"type", "text"}}}})},
          {"tool_choice", echo("tool_choice", "auto")},
          {"tools", echo("tools", json::array())},
          {"top_logprobs", spec.logprobs.value_or(0)},
          {"top_p", spec.top_p.value_or(1.0)},
          {"truncation", "disabled"},
          {"user", echo("user", nullptr)}};
}

// The validator's field names in the words of this dialect.
ApiError InResponsesWords(FieldError error) {
  if (error.param == "prompt") {
    error.param = "input";
  } else if (error.param == "max_tokens") {
    error.param = "max_output_tokens";
  } else if (error.param == "logprobs") {
    error.param = "top_logprobs";
  }
  return FromFieldError(error);
}

std::optional<ApiError> ReadResponses(const ApiContext& context,
                                      const HttpRequest& request, ResponsesRequest* out) {
  json body;
  if (auto error = ReadBody(request, context, &body)) {
    return error;
  }
  RequestSpec spec;
  OutputOptions output;
  if (auto error = ReadSharedFields(body, request, context, &spec, &output)) {
    return error;
  }
  if (auto error = RefusePromptLogprobs(spec)) {
    return error;
  }
  FieldError error;
  JsonFields fields(body, &error);
  if (auto refused = RefuseMemory(fields)) {
    return refused;
  }
  if (auto refused = RefuseModes(body)) {
    return refused;
  }
  if (auto bad = ReadLogprobs(body, &spec)) {
    return bad;
  }
  spec.max_tokens = fields.Integer("max_output_tokens");
  if (!fields.ok()) {
    return FromFieldError(error);
  }
  ChatConversation conversation;
  if (auto bad = ReadResponseConversation(context, body, request.body, &conversation)) {
    return bad;
  }
  if (auto bad = EncodeConversation(context, conversation, "input", &out->prompt)) {
    return bad;
  }
  if (const auto text = body.find("text"); text != body.end() && text->is_object()) {
    if (auto bad = ReadFlatFormat(OrderedBody(request)["text"]["format"], "text.format",
                                  &spec.grammar)) {
      return bad;
    }
  }
  if (auto bad = ConstrainAnswer(context, request.body, conversation.tools,
                                 out->prompt.in_reasoning, &spec)) {
    return bad;
  }
  out->stream = output.stream;
  out->logprobs = spec.logprobs.has_value();
  spec.request_id = context.ids->NextId("resp_");
  spec.prompt_ids = out->prompt.ids;
  spec.n = 1;
  // The parser must see the tags of reasoning and tool calls, which a checkpoint may mark
  // special.
  spec.skip_special_tokens = false;
  out->settings = SettingsOf(context, body, spec, conversation.options);
  auto validated =
      ValidatedRequest::Create(std::move(spec), context.options.limits,
                               context.clock->Now(), context.ids->NextSeed(), &error);
  if (!validated.ok()) {
    return InResponsesWords(error);
  }
  out->requests.push_back(*std::move(validated));
  return std::nullopt;
}

}  // namespace

void HandleResponses(const ApiContext& context, const HttpRequest& request,
                     std::shared_ptr<ResponseWriter> writer) {
  ResponsesRequest read;
  if (auto error = ReadResponses(context, request, &read)) {
    writer->Respond(ErrorResponse(*error));
    return;
  }
  auto responder = std::make_unique<BlockResponder>(
      writer, TurnReader(&context, "call_", read.prompt.in_reasoning),
      std::make_unique<ResponseAnswer>(context.ids, context.tokenizer,
                                       std::move(read.settings)),
      read.stream, read.logprobs);
  StartGeneration(&context, std::move(writer), std::move(read.requests),
                  std::move(responder));
}

}  // namespace tessera::coordinator
