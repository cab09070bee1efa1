#include "coordinator/api/openai_completions.h"

#include <algorithm>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "fmt/format.h"
#include "nlohmann/json.hpp"

#include "common/status.h"
#include "coordinator/api/completion_responder.h"
#include "coordinator/api/errors.h"
#include "coordinator/api/generation.h"
#include "coordinator/api/json_fields.h"
#include "coordinator/api/sampling_fields.h"

namespace tessera::coordinator {
namespace {

using nlohmann::json;

// A body that was read, before its prompts are validated.
struct CompletionRequest {
  RequestSpec spec;  // without prompt_ids
  OutputOptions output;
  std::vector<std::vector<int32_t>> prompts;
  bool echo = false;
  bool logprobs = false;
  bool prompt_logprobs = false;
  bool without_output = false;  // max_tokens: 0
  int32_t num_shown = 1;        // n, of best_of
};

// One text prompt as ids. FIM, where the client gave a suffix, writes the model's three
// hole tokens.
std::optional<ApiError> EncodeText(const ApiContext& context, const std::string& text,
                                   const std::optional<std::string>& suffix,
                                   std::vector<int32_t>* ids) {
  if (text.size() + suffix.value_or("").size() > context.max_prompt_bytes) {
    return BadRequestError(
        "prompt",
        fmt::format("the prompt of {} bytes can't fit the context of {} tokens",
                    text.size(), context.options.limits.max_model_len),
        "context_length_exceeded");
  }
  const model::Tokenizer& tokenizer = *context.tokenizer;
  if (context.options.bos_token_id.has_value()) {
    ids->push_back(*context.options.bos_token_id);
  }
  const auto append = [&](const std::string& part) {
    const auto more = tokenizer.Encode(part, model::AddedTokens::kRecognize);
    ids->insert(ids->end(), more.begin(), more.end());
  };
  if (!suffix.has_value()) {
    append(text);
    return std::nullopt;
  }
  const auto begin = tokenizer.TokenId("<｜fim▁begin｜>");
  const auto hole = tokenizer.TokenId("<｜fim▁hole｜>");
  const auto end = tokenizer.TokenId("<｜fim▁end｜>");
  if (!begin || !hole || !end) {
    return UnsupportedError("suffix", "this model has no fill-in-the-middle tokens");
  }
  ids->push_back(*begin);
  append(text);
  ids->push_back(*hole);
  append(*suffix);
  ids->push_back(*end);
  return std::nullopt;
}

ApiError PromptTypeError() {
  return BadRequestError(
      "prompt",
      "prompt must be a string, a list of strings, a list of token ids or "
      "a list of such lists");
}

// The four shapes of `prompt`.
std::optional<ApiError> ReadPrompts(const ApiContext& context, const json& body,
                                    const std::optional<std::string>& suffix,
                                    CompletionRequest* out) {
  const auto prompt = body.find("prompt");
  if (prompt == body.end() || prompt->is_null()) {
    return BadRequestError("prompt", "prompt is missing");
  }
  const bool is_list =
      prompt->is_array() && !prompt->empty() && !prompt->front().is_number();
  if (prompt->is_array() && prompt->empty()) {
    return BadRequestError("prompt", "the prompt is empty");
  }
  const size_t count = is_list ? prompt->size() : 1;
  if (count > static_cast<size_t>(context.options.max_prompts)) {
    return BadRequestError("prompt", fmt::format("{} prompts, expected at most {}", count,
                                                 context.options.max_prompts));
  }
  for (size_t i = 0; i < count; ++i) {
    const json& one = is_list ? (*prompt)[i] : *prompt;
    std::vector<int32_t> ids;
    if (one.is_string()) {
      if (auto error =
              EncodeText(context, one.get_ref<const std::string&>(), suffix, &ids)) {
        return error;
      }
    } else if (!one.is_array() || !ReadTokenIds(one, &ids)) {
      return PromptTypeError();
    } else if (suffix.has_value()) {
      return BadRequestError("suffix", "a suffix needs a prompt of text, not token ids");
    }
    out->prompts.push_back(std::move(ids));
  }
  return std::nullopt;
}

// vLLM's truncate_prompt_tokens: the last so many tokens of each prompt; -1: as many as
// leave room for max_tokens.
std::optional<ApiError> TruncatePrompts(const ApiContext& context,
                                        const std::optional<int64_t>& most,
                                        CompletionRequest* out) {
  if (!most.has_value()) {
    return std::nullopt;
  }
  const int64_t context_length = context.options.limits.max_model_len;
  const int64_t room =
      context_length -
      std::clamp<int64_t>(out->spec.max_tokens.value_or(1), 0, context_length);
  if (*most < -1 || *most == 0 || *most > context_length) {
    return BadRequestError("truncate_prompt_tokens",
                           fmt::format("truncate_prompt_tokens is {}, expected -1 or 1 "
                                       "to {}",
                                       *most, context_length));
  }
  const int64_t kept = *most > 0 ? *most : std::max<int64_t>(room, 1);
  for (std::vector<int32_t>& prompt : out->prompts) {
    if (std::ssize(prompt) > kept) {
      prompt.erase(prompt.begin(), prompt.end() - kept);
    }
  }
  return std::nullopt;
}

// logprobs, of the prompt too where it is echoed; max_tokens: 0, which asks for nothing
// but the prompt's, is served as one token that nobody sees.
std::optional<ApiError> ReadScores(CompletionRequest* out) {
  RequestSpec& spec = out->spec;
  out->logprobs = spec.logprobs.has_value();
  out->prompt_logprobs = spec.prompt_logprobs.has_value();
  if (out->echo && out->logprobs) {
    spec.prompt_logprobs =
        std::max(*spec.logprobs, spec.prompt_logprobs.value_or(*spec.logprobs));
  }
  if (spec.max_tokens == 0) {
    out->without_output = true;
    spec.max_tokens = 1;
  }
  return std::nullopt;
}

// The n best of best_of choices.
std::optional<ApiError> ReadBestOf(const ApiContext& context,
                                   const std::optional<int64_t>& best_of,
                                   CompletionRequest* out) {
  RequestSpec& spec = out->spec;
  const int64_t n = spec.n.value_or(1);
  const int64_t most = context.options.limits.max_choices;
  out->num_shown = static_cast<int32_t>(std::clamp<int64_t>(n, 1, most));
  if (!best_of.has_value() || *best_of == n) {
    return std::nullopt;
  }
  if (*best_of < n || *best_of > most) {
    return BadRequestError("best_of", fmt::format("best_of is {}, expected n ({}) to {}",
                                                  *best_of, n, most));
  }
  if (out->output.stream) {
    return BadRequestError("best_of", "best_of beyond n can't be streamed");
  }
  spec.n = best_of;
  spec.logprobs = spec.logprobs.value_or(0);  // what they are ranked by
  return std::nullopt;
}

std::optional<ApiError> ReadCompletion(const ApiContext& context,
                                       const HttpRequest& request,
                                       CompletionRequest* out) {
  json body;
  if (auto error = ReadBody(request, context, &body)) {
    return error;
  }
  if (auto error = ReadSharedFields(body, request, context, &out->spec, &out->output)) {
    return error;
  }
  FieldError error;
  JsonFields fields(body, &error);
  out->echo = fields.Bool("echo").value_or(false);
  out->spec.logprobs = fields.Integer("logprobs");
  const auto best_of = fields.Integer("best_of");
  const auto suffix = fields.String("suffix");
  const auto kept_tokens = fields.Integer("truncate_prompt_tokens");
  if (!fields.ok()) {
    return FromFieldError(error);
  }
  if (auto bad = ReadScores(out)) {
    return bad;
  }
  if (auto bad = ReadBestOf(context, best_of, out)) {
    return bad;
  }
  if (out->echo && suffix.has_value()) {
    return UnsupportedError("echo", "a prompt with a suffix can't be echoed");
  }
  if (auto bad = ReadPrompts(context, body, suffix, out)) {
    return bad;
  }
  return TruncatePrompts(context, kept_tokens, out);
}

// Checks each prompt with the shared constructor; nothing is submitted unless all pass.
std::optional<ApiError> ValidatePrompts(const ApiContext& context,
                                        const CompletionRequest& request,
                                        const std::string& id,
                                        std::vector<ValidatedRequest>* out) {
  const absl::Time now = context.clock->Now();
  for (size_t i = 0; i < request.prompts.size(); ++i) {
    RequestSpec spec = request.spec;
    spec.request_id = request.prompts.size() == 1 ? id : fmt::format("{}-{}", id, i);
    spec.prompt_ids = request.prompts[i];
    FieldError error;
    auto validated = ValidatedRequest::Create(std::move(spec), context.options.limits,
                                              now, context.ids->NextSeed(), &error);
    if (!validated.ok()) {
      return FromFieldError(error);
    }
    out->push_back(*std::move(validated));
  }
  return std::nullopt;
}

CompletionAnswer DescribeAnswer(const ApiContext& context, CompletionRequest request,
                                std::string id, int32_t choices_per_prompt) {
  CompletionAnswer answer;
  answer.id = std::move(id);
  answer.created = absl::ToUnixSeconds(context.clock->Now());
  answer.output = request.output;
  answer.choices_per_prompt = choices_per_prompt;
  answer.num_shown = request.num_shown;
  answer.logprobs = request.logprobs;
  answer.num_top_logprobs = static_cast<size_t>(request.spec.logprobs.value_or(0));
  answer.echo_logprobs = request.echo && request.logprobs;
  answer.prompt_logprobs = request.prompt_logprobs;
  answer.without_output = request.without_output;
  for (const auto& prompt : request.prompts) {
    answer.prompt_tokens += static_cast<int64_t>(prompt.size());
    if (request.echo) {
      answer.echoes.push_back(
          context.tokenizer->Decode(prompt, request.spec.skip_special_tokens)
              .value_or(""));
    }
  }
  answer.prompts = std::move(request.prompts);
  return answer;
}

}  // namespace

void HandleCompletion(const ApiContext& context, const HttpRequest& request,
                      std::shared_ptr<ResponseWriter> writer) {
  CompletionRequest read;
  const std::string id = context.ids->NextId("cmpl-");
  std::vector<ValidatedRequest> validated;
  std::optional<ApiError> error = ReadCompletion(context, request, &read);
  if (!error) {
    error = ValidatePrompts(context, read, id, &validated);
  }
  if (error) {
    writer->Respond(ErrorResponse(*error));
    return;
  }
  auto responder = std::make_unique<CompletionResponder>(
      &context, writer,
      DescribeAnswer(context, std::move(read), id, validated.front().num_choices()));
  StartGeneration(&context, std::move(writer), std::move(validated),
                  std::move(responder));
}

}  // namespace tessera::coordinator
