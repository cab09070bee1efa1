#include "coordinator/api/sampling_fields.h"

#include <algorithm>
#include <charconv>
#include <limits>
#include <string>
#include <utility>

#include "fmt/format.h"
#include "nlohmann/json.hpp"

#include "coordinator/api/grammar_fields.h"
#include "coordinator/api/json_fields.h"

namespace tessera::coordinator {
namespace {

using nlohmann::json;

constexpr size_t kMaxBadWordBytes = 256;

// `stop`: a string or a list of strings.
void ReadStops(const json& body, JsonFields* fields, RequestSpec* spec) {
  const auto found = body.find("stop");
  if (found == body.end() || found->is_null()) {
    return;
  }
  if (found->is_string()) {
    spec->stop.push_back(found->get<std::string>());
    return;
  }
  if (!found->is_array()) {
    fields->Fail("stop", "stop must be a string or a list of strings");
    return;
  }
  for (const json& stop : *found) {
    if (!stop.is_string()) {
      fields->Fail("stop", "stop must be a string or a list of strings");
      return;
    }
    spec->stop.push_back(stop.get<std::string>());
  }
}

// `logit_bias`: {"token id": bias}.
void ReadLogitBias(JsonFields* fields, RequestSpec* spec) {
  const json* biases = fields->Object("logit_bias");
  if (biases == nullptr) {
    return;
  }
  for (const auto& [key, value] : biases->items()) {
    int32_t id = 0;
    const char* end = key.data() + key.size();
    const auto parsed = std::from_chars(key.data(), end, id);
    if (key.empty() || parsed.ec != std::errc() || parsed.ptr != end ||
        !value.is_number()) {
      fields->Fail("logit_bias", "logit_bias must map token ids to numbers");
      return;
    }
    spec->logit_bias.emplace_back(id, value.get<double>());
  }
}

// `bad_words`: strings, each forbidden at the start of a word and inside of one.
void ReadBadWords(JsonFields* fields, const ApiContext& context, RequestSpec* spec) {
  const json* words = fields->Array("bad_words");
  if (words == nullptr) {
    return;
  }
  const auto most = static_cast<size_t>(context.options.limits.max_bad_words);
  if (2 * words->size() > most) {
    fields->Fail("bad_words",
                 fmt::format("{} words, expected at most {}", words->size(), most / 2));
    return;
  }
  for (const json& word : *words) {
    if (!word.is_string() || word.get_ref<const std::string&>().empty() ||
        word.get_ref<const std::string&>().size() > kMaxBadWordBytes) {
      fields->Fail("bad_words",
                   fmt::format("bad_words must be a list of strings of 1 to {} bytes",
                               kMaxBadWordBytes));
      return;
    }
    const std::string_view text = word.get_ref<const std::string&>();
    const std::string_view bare =
        text.substr(std::min(text.find_first_not_of(' '), text.size() - 1));
    for (const std::string& spelling : {std::string(bare), " " + std::string(bare)}) {
      auto ids = context.tokenizer->Encode(spelling, model::AddedTokens::kPlain);
      if (std::find(spec->bad_words.begin(), spec->bad_words.end(), ids) ==
          spec->bad_words.end()) {
        spec->bad_words.push_back(std::move(ids));
      }
    }
  }
}

void ReadSampling(JsonFields* fields, RequestSpec* spec) {
  spec->max_tokens = fields->Integer("max_tokens");
  spec->min_tokens = fields->Integer("min_tokens");
  spec->temperature = fields->Number("temperature");
  spec->top_p = fields->Number("top_p");
  spec->top_k = fields->Integer("top_k");
  spec->min_p = fields->Number("min_p");
  spec->repetition_penalty = fields->Number("repetition_penalty");
  spec->presence_penalty = fields->Number("presence_penalty");
  spec->frequency_penalty = fields->Number("frequency_penalty");
  spec->seed = fields->Integer("seed");
  spec->n = fields->Integer("n");
  spec->ignore_eos = fields->Bool("ignore_eos").value_or(false);
  spec->include_stop_text = fields->Bool("include_stop_str_in_output").value_or(false);
  spec->skip_special_tokens = fields->Bool("skip_special_tokens").value_or(true);
  // Far more ids than any limit, so that the validator says how many are allowed.
  constexpr size_t kManyIds = 1 << 16;
  spec->stop_token_ids =
      fields->TokenIds("stop_token_ids", kManyIds).value_or(std::vector<int32_t>());
  spec->allowed_token_ids = fields->TokenIds("allowed_token_ids", kManyIds);
  spec->prompt_logprobs = fields->Integer("prompt_logprobs");
  const int64_t priority = fields->Integer("priority").value_or(0);
  if (priority < std::numeric_limits<int32_t>::min() ||
      priority > std::numeric_limits<int32_t>::max()) {
    fields->Fail("priority", "priority must fit 32 bits");
  } else {
    spec->priority = static_cast<int32_t>(priority);
  }
  // The salt narrows the tenant: it can keep prefixes apart, never join tenants.
  spec->cache_salt = fields->String("cache_salt").value_or("");
}

void ReadOutput(JsonFields* fields, FieldError* error, OutputOptions* output) {
  output->stream = fields->Bool("stream").value_or(false);
  output->return_token_ids = fields->Bool("return_token_ids").value_or(false);
  const json* options = fields->Object("stream_options");
  if (options == nullptr) {
    return;
  }
  if (!output->stream) {
    fields->Fail("stream_options", "stream_options needs stream: true");
    return;
  }
  JsonFields nested(*options, error, "stream_options.");
  output->include_usage = nested.Bool("include_usage").value_or(false);
  output->continuous_usage = nested.Bool("continuous_usage_stats").value_or(false);
}

// The client's own time budget; a header, because the body belongs to the dialects.
void ReadTimeout(const HttpRequest& request, JsonFields* fields, RequestSpec* spec) {
  constexpr const char* kHeader = "x-request-timeout-ms";
  const std::string_view text = FindHeader(request.headers, kHeader);
  if (text.empty()) {
    return;
  }
  int64_t milliseconds = 0;
  const auto parsed =
      std::from_chars(text.data(), text.data() + text.size(), milliseconds);
  if (parsed.ec != std::errc() || parsed.ptr != text.data() + text.size()) {
    fields->Fail("timeout",
                 "x-request-timeout-ms must be a whole number of milliseconds");
    return;
  }
  spec->timeout = absl::Milliseconds(milliseconds);
}

std::optional<ApiError> RefuseUnsupported(const JsonFields& fields) {
  if (fields.Has("guided_whitespace_pattern")) {
    return UnsupportedError("guided_whitespace_pattern",
                            "guided_whitespace_pattern is not supported");
  }
  if (fields.Has("chat_template")) {
    return UnsupportedError("chat_template",
                            "chat_template is not accepted in a request");
  }
  return std::nullopt;
}

}  // namespace

std::optional<ApiError> RefusePromptLogprobs(const RequestSpec& spec) {
  if (!spec.prompt_logprobs.has_value()) {
    return std::nullopt;
  }
  return UnsupportedError(
      "prompt_logprobs",
      "only /v1/completions and /v1/chat/completions show prompt_logprobs");
}

std::optional<ApiError> ReadBody(const HttpRequest& request, const ApiContext& context,
                                 json* body) {
  const std::string_view encoding = FindHeader(request.headers, "content-encoding");
  if (!encoding.empty() && encoding != "identity") {
    return EncodingError();
  }
  auto parsed = ParseJsonObject(request.body, context.options.max_json_depth);
  if (!parsed.ok()) {
    return FromFieldError({parsed.status(), "", ""});
  }
  *body = *std::move(parsed);
  return std::nullopt;
}

std::optional<ApiError> CheckModel(const json& body, const ApiContext& context) {
  const auto found = body.find("model");
  if (found == body.end() || found->is_null()) {
    return std::nullopt;
  }
  if (!found->is_string()) {
    return BadRequestError("model", "model must be a string");
  }
  const std::string& name = found->get_ref<const std::string&>();
  if (!context.ServesModel(name)) {
    return ModelNotFoundError(name);
  }
  return std::nullopt;
}

std::optional<ApiError> ReadSharedFields(const json& body, const HttpRequest& request,
                                         const ApiContext& context, RequestSpec* spec,
                                         OutputOptions* output) {
  if (auto error = CheckModel(body, context)) {
    return error;
  }
  spec->tenant = request.key.tenant;
  FieldError error;
  JsonFields fields(body, &error);
  if (auto refused = RefuseUnsupported(fields)) {
    return refused;
  }
  if (auto bad = ReadGrammarFields(body, request, &spec->grammar)) {
    return bad;
  }
  ReadSampling(&fields, spec);
  ReadBadWords(&fields, context, spec);
  ReadStops(body, &fields, spec);
  ReadLogitBias(&fields, spec);
  ReadOutput(&fields, &error, output);
  ReadTimeout(request, &fields, spec);
  if (output->stream && spec->prompt_logprobs.has_value()) {
    fields.Fail("prompt_logprobs", "prompt_logprobs can't be streamed");
  }
  if (!fields.ok()) {
    return FromFieldError(error);
  }
  return std::nullopt;
}

}  // namespace tessera::coordinator
