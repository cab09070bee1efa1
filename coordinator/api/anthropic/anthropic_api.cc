#include "coordinator/api/anthropic/anthropic_api.h"

#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "nlohmann/json.hpp"

#include "coordinator/api/anthropic/anthropic_answer.h"
#include "coordinator/api/anthropic/anthropic_conversation.h"
#include "coordinator/api/anthropic/anthropic_errors.h"
#include "coordinator/api/chat/chat_prompt.h"
#include "coordinator/api/generation.h"
#include "coordinator/api/grammar_fields.h"
#include "coordinator/api/json_fields.h"
#include "coordinator/api/sampling_fields.h"

namespace tessera::coordinator {
namespace {

using nlohmann::json;

// A request that passed every check.
struct MessagesRequest {
  model::EncodedChat prompt;
  std::vector<ValidatedRequest> requests;  // one
  bool stream = false;
};

// The prompt of a body: what count_tokens counts and a message starts from.
std::optional<ApiError> ReadPrompt(const ApiContext& context, const json& body,
                                   std::string_view text, model::EncodedChat* prompt,
                                   ToolDemand* tools) {
  ChatConversation conversation;
  if (auto error = ReadAnthropicConversation(context, body, text, &conversation)) {
    return error;
  }
  *tools = conversation.tools;
  return EncodeConversation(context, conversation, "messages", prompt);
}

std::optional<ApiError> ReadStopSequences(const json& body, RequestSpec* spec) {
  FieldError error;
  JsonFields fields(body, &error);
  const json* stops = fields.Array("stop_sequences");
  if (!fields.ok()) {
    return FromFieldError(error);
  }
  for (size_t i = 0; stops != nullptr && i < stops->size(); ++i) {
    if (!(*stops)[i].is_string()) {
      return BadRequestError("stop_sequences", "stop_sequences must hold strings");
    }
    spec->stop.push_back((*stops)[i].get<std::string>());
  }
  return std::nullopt;
}

// output_config.format, or output_format as its beta had it.
std::optional<ApiError> ReadFormat(const json& body, const HttpRequest& request,
                                   std::optional<GrammarSpec>* grammar) {
  if (!body.contains("output_config") && !body.contains("output_format")) {
    return std::nullopt;
  }
  nlohmann::ordered_json ordered = OrderedBody(request);
  if (auto bad = ReadFlatFormat(ordered["output_format"], "output_format", grammar)) {
    return bad;
  }
  const nlohmann::ordered_json& config = ordered["output_config"];
  if (grammar->has_value() || !config.is_object() || !config.contains("format")) {
    return std::nullopt;
  }
  return ReadFlatFormat(config["format"], "output_config.format", grammar);
}

// The validator's field names in the words of this dialect.
ApiError InAnthropicWords(FieldError error) {
  if (error.param == "prompt") {
    error.param = "messages";
  } else if (error.param == "stop") {
    error.param = "stop_sequences";
  }
  return FromFieldError(error);
}

std::optional<ApiError> ReadMessagesRequest(const ApiContext& context,
                                            const HttpRequest& request,
                                            const std::string& id, MessagesRequest* out) {
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
  if (!spec.max_tokens.has_value()) {
    return BadRequestError("max_tokens", "max_tokens is missing");
  }
  FieldError error;
  JsonFields fields(body, &error);
  fields.Object("metadata");  // checked, not used: a user's id decides nothing here
  if (!fields.ok()) {
    return FromFieldError(error);
  }
  if (auto bad = ReadStopSequences(body, &spec)) {
    return bad;
  }
  ToolDemand tools;
  if (auto bad = ReadPrompt(context, body, request.body, &out->prompt, &tools)) {
    return bad;
  }
  if (auto bad = ReadFormat(body, request, &spec.grammar)) {
    return bad;
  }
  if (auto bad = ConstrainAnswer(context, request.body, tools, out->prompt.in_reasoning,
                                 &spec)) {
    return bad;
  }
  out->stream = output.stream;
  spec.request_id = id;
  spec.prompt_ids = out->prompt.ids;
  spec.n = 1;
  // The parser must see the tags of reasoning and tool calls, which a checkpoint may mark
  // special.
  spec.skip_special_tokens = false;
  auto validated =
      ValidatedRequest::Create(std::move(spec), context.options.limits,
                               context.clock->Now(), context.ids->NextSeed(), &error);
  if (!validated.ok()) {
    return InAnthropicWords(error);
  }
  out->requests.push_back(*std::move(validated));
  return std::nullopt;
}

json ModelJson(const ApiContext& context, std::string_view name) {
  const absl::Time created = absl::FromUnixSeconds(context.options.model_created);
  return {{"type", "model"},
          {"id", name},
          {"display_name", name},
          {"created_at",
           absl::FormatTime("%Y-%m-%dT%H:%M:%SZ", created, absl::UTCTimeZone())},
          {"max_input_tokens", context.options.limits.max_model_len},
          {"max_tokens", context.options.limits.max_model_len}};
}

}  // namespace

void HandleMessages(const ApiContext& context, const HttpRequest& request,
                    std::shared_ptr<ResponseWriter> writer) {
  const std::string id = context.ids->NextId("msg_");
  MessagesRequest read;
  if (auto error = ReadMessagesRequest(context, request, id, &read)) {
    writer->Respond(AnthropicErrorResponse(*error, request.id));
    return;
  }
  auto answer = std::make_unique<AnthropicAnswer>(
      AnthropicAnswer::Facts{id, context.model_name(), request.id,
                             static_cast<int64_t>(read.prompt.ids.size())});
  auto responder = std::make_unique<BlockResponder>(
      writer, TurnReader(&context, "toolu_", read.prompt.in_reasoning), std::move(answer),
      read.stream);
  StartGeneration(&context, std::move(writer), std::move(read.requests),
                  std::move(responder));
}

HttpResponse HandleCountTokens(const ApiContext& context, const HttpRequest& request) {
  json body;
  model::EncodedChat prompt;
  std::optional<ApiError> error = ReadBody(request, context, &body);
  if (!error) {
    error = CheckModel(body, context);
  }
  if (!error) {
    ToolDemand tools;
    error = ReadPrompt(context, body, request.body, &prompt, &tools);
  }
  if (error) {
    return AnthropicErrorResponse(*error, request.id);
  }
  HttpResponse response;
  response.body = DumpJson({{"input_tokens", prompt.ids.size()}});
  return response;
}

HttpResponse ListAnthropicModels(const ApiContext& context) {
  json body = {{"data", json::array()}, {"has_more", false}};
  for (const std::string& name : context.options.model_names) {
    body["data"].push_back(ModelJson(context, name));
  }
  body["first_id"] = context.options.model_names.front();
  body["last_id"] = context.options.model_names.back();
  HttpResponse response;
  response.body = DumpJson(body);
  return response;
}

HttpResponse GetAnthropicModel(const ApiContext& context, std::string_view name,
                               std::string_view request_id) {
  if (!context.ServesModel(name)) {
    return AnthropicErrorResponse(ModelNotFoundError(name), request_id);
  }
  HttpResponse response;
  response.body = DumpJson(ModelJson(context, name));
  return response;
}

}  // namespace tessera::coordinator
