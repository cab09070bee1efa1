#include "coordinator/api/models.h"

#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "fmt/format.h"
#include "nlohmann/json.hpp"

#include "coordinator/api/errors.h"
#include "coordinator/api/json_fields.h"
#include "coordinator/api/openai_chat.h"
#include "coordinator/api/response_json.h"
#include "coordinator/api/sampling_fields.h"

namespace tessera::coordinator {
namespace {

using nlohmann::json;

json ModelJson(const ApiContext& context, const std::string& name) {
  return {{"id", name},
          {"object", "model"},
          {"created", context.options.model_created},
          {"owned_by", "tessera"},
          {"root", context.model_name()},
          {"parent", nullptr},
          {"max_model_len", context.options.limits.max_model_len},
          {"permission", json::array()}};
}

HttpResponse Json(const json& body) {
  HttpResponse response;
  response.body = DumpJson(body);
  return response;
}

// The text form of /tokenize.
std::optional<ApiError> TokenizeText(const ApiContext& context, JsonFields* fields,
                                     const FieldError& error, std::vector<int32_t>* ids) {
  const auto prompt = fields->String("prompt");
  const bool add_special = fields->Bool("add_special_tokens").value_or(true);
  if (!fields->ok()) {
    return FromFieldError(error);
  }
  if (!prompt.has_value()) {
    return BadRequestError("prompt", "prompt or messages is missing");
  }
  if (add_special && context.options.bos_token_id.has_value()) {
    ids->push_back(*context.options.bos_token_id);
  }
  const auto text = context.tokenizer->Encode(*prompt, model::AddedTokens::kRecognize);
  ids->insert(ids->end(), text.begin(), text.end());
  return std::nullopt;
}

}  // namespace

HttpResponse ListModels(const ApiContext& context) {
  json list = json::array();
  for (const std::string& name : context.options.model_names) {
    list.push_back(ModelJson(context, name));
  }
  return Json({{"object", "list"}, {"data", std::move(list)}});
}

HttpResponse GetModel(const ApiContext& context, std::string_view name) {
  if (!context.ServesModel(name)) {
    return ErrorResponse(ModelNotFoundError(name));
  }
  return Json(ModelJson(context, std::string(name)));
}

HttpResponse HandleTokenize(const ApiContext& context, const HttpRequest& request) {
  json body;
  if (auto error = ReadBody(request, context, &body)) {
    return ErrorResponse(*error);
  }
  if (auto error = CheckModel(body, context)) {
    return ErrorResponse(*error);
  }
  FieldError error;
  JsonFields fields(body, &error);
  const bool with_strings = fields.Bool("return_token_strs").value_or(false);
  std::vector<int32_t> ids;
  if (fields.Has("messages")) {
    model::EncodedChat prompt;
    ToolDemand tools;
    if (auto refused = ReadChatPrompt(context, body, request.body, &prompt, &tools)) {
      return ErrorResponse(*refused);
    }
    ids = std::move(prompt.ids);
  } else if (auto refused = TokenizeText(context, &fields, error, &ids)) {
    return ErrorResponse(*refused);
  }
  if (!fields.ok()) {
    return ErrorResponse(FromFieldError(error));
  }
  json strings = nullptr;
  if (with_strings) {
    strings = json::array();
    for (const int32_t id : ids) {
      strings.push_back(TokenText(*context.tokenizer, id));
    }
  }
  return Json({{"count", ids.size()},
               {"max_model_len", context.options.limits.max_model_len},
               {"tokens", std::move(ids)},
               {"token_strs", std::move(strings)}});
}

HttpResponse HandleRender(const ApiContext& context, const HttpRequest& request) {
  json body;
  if (auto error = ReadBody(request, context, &body)) {
    return ErrorResponse(*error);
  }
  if (auto error = CheckModel(body, context)) {
    return ErrorResponse(*error);
  }
  model::EncodedChat prompt;
  ToolDemand tools;
  if (auto error = ReadChatPrompt(context, body, request.body, &prompt, &tools)) {
    return ErrorResponse(*error);
  }
  const model::Tokenizer& tokenizer = *context.tokenizer;
  json tokens = json::array();
  for (const int32_t id : prompt.ids) {
    tokens.push_back({{"id", id},
                      {"text", TokenText(tokenizer, id)},
                      {"bytes", TokenBytesJson(tokenizer, id)},
                      {"special", tokenizer.IsSpecial(id)}});
  }
  return Json({{"object", "chat.completion.render"},
               {"model", context.model_name()},
               {"prompt", std::move(prompt.text)},
               {"in_reasoning", prompt.in_reasoning},
               {"count", prompt.ids.size()},
               {"max_model_len", context.options.limits.max_model_len},
               {"token_ids", std::move(prompt.ids)},
               {"tokens", std::move(tokens)}});
}

HttpResponse HandleDetokenize(const ApiContext& context, const HttpRequest& request) {
  json body;
  if (auto error = ReadBody(request, context, &body)) {
    return ErrorResponse(*error);
  }
  if (auto error = CheckModel(body, context)) {
    return ErrorResponse(*error);
  }
  FieldError error;
  JsonFields fields(body, &error);
  const auto ids =
      fields.TokenIds("tokens", static_cast<size_t>(context.options.max_tokenize_ids));
  if (!fields.ok()) {
    return ErrorResponse(FromFieldError(error));
  }
  if (!ids.has_value()) {
    return ErrorResponse(BadRequestError("tokens", "tokens is missing"));
  }
  const auto text = context.tokenizer->Decode(*ids, /*skip_special=*/false);
  if (!text.ok()) {
    return ErrorResponse(BadRequestError(
        "tokens", fmt::format("a token id is out of range, expected 0 to {}",
                              context.tokenizer->size() - 1)));
  }
  return Json({{"prompt", *text}});
}

}  // namespace tessera::coordinator
