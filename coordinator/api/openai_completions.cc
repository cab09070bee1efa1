#include "coordinator/api/openai_completions.h"

#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "fmt/format.h"
#include "nlohmann/json.hpp"

#include "common/status.h"
#include "coordinator/api/errors.h"
#include "coordinator/api/generation.h"
#include "coordinator/api/http/event_template.h"
#include "coordinator/api/json_fields.h"
#include "coordinator/api/response_json.h"
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
};

// What does not change while the answer is written.
struct CompletionAnswer {
  std::string id;
  int64_t created = 0;
  OutputOptions output;
  int32_t choices_per_prompt = 1;
  bool logprobs = false;
  std::vector<std::string> echoes;            // one per prompt; empty without echo
  std::vector<std::vector<int32_t>> prompts;  // kept only for return_token_ids
  int64_t prompt_tokens = 0;
};

class CompletionResponder final : public GenerationResponder {
 public:
  CompletionResponder(const ApiContext* context, std::shared_ptr<ResponseWriter> writer,
                      CompletionAnswer answer)
      : context_(context), writer_(std::move(writer)), answer_(std::move(answer)) {
    const size_t per_prompt = static_cast<size_t>(answer_.choices_per_prompt);
    choices_.resize(answer_.prompts.size() * per_prompt);
    for (size_t i = 0; i < choices_.size(); ++i) {
      if (!answer_.echoes.empty()) {
        choices_[i].text = answer_.echoes[i / per_prompt];
      }
    }
  }

  void Begin() override {
    if (!answer_.output.stream) {
      return;
    }
    writer_->StartStream(SseHead());
    for (size_t i = 0; i < choices_.size(); ++i) {
      if (!choices_[i].text.empty()) {
        SendChunk(i, nullptr);
      }
    }
  }

  void Token(size_t prompt, const TokenEvent& event) override {
    const size_t index = Index(prompt, event.choice);
    Choice& choice = choices_[index];
    choice.text += event.text;
    ++num_tokens_;
    if (answer_.logprobs) {
      choice.logprobs.push_back(event);
    }
    if (answer_.output.return_token_ids) {
      choice.token_ids.push_back(event.token);
    }
    if (answer_.output.stream && (!event.text.empty() || answer_.logprobs)) {
      SendText(index);
    }
  }

  void ChoiceDone(size_t prompt, const ChoiceFinished& event) override {
    const size_t index = Index(prompt, event.choice);
    choices_[index].text += event.text;
    if (answer_.output.stream) {
      SendChunk(index, &event);
    } else {
      choices_[index].finished = event;
    }
  }

  void Done(const RequestUsage& usage) override {
    if (answer_.output.stream) {
      if (answer_.output.include_usage) {
        json chunk = Envelope();
        chunk["choices"] = json::array();
        chunk["usage"] = UsageJson(usage, 0);
        writer_->Write(SseEvent(chunk));
      }
      writer_->Write(kSseDone);
      writer_->Finish(/*close=*/false);
      return;
    }
    json body = Envelope();
    body["choices"] = json::array();
    for (size_t i = 0; i < choices_.size(); ++i) {
      const auto& finished = choices_[i].finished;
      body["choices"].push_back(ChoiceJson(i, finished ? &*finished : nullptr));
    }
    body["usage"] = UsageJson(usage, 0);
    HttpResponse response;
    response.body = DumpJson(body);
    writer_->Respond(std::move(response));
  }

  void Fail(const ApiError& error, bool begun) override {
    if (begun && answer_.output.stream) {
      writer_->Write("data: " + ErrorBody(error) + "\n\n");
      writer_->Finish(/*close=*/true);
    } else {
      writer_->Respond(ErrorResponse(error));
    }
  }

 private:
  // Text, logprobs and ids that were not sent yet; the whole answer where it is not
  // streamed.
  struct Choice {
    std::string text;
    std::vector<TokenEvent> logprobs;
    std::vector<int32_t> token_ids;
    int64_t text_offset = 0;
    std::optional<ChoiceFinished> finished;
    std::optional<EventTemplate> text_chunk;  // of a stream, from the first token on
  };

  size_t Index(size_t prompt, int32_t choice) const {
    return prompt * static_cast<size_t>(answer_.choices_per_prompt) +
           static_cast<size_t>(choice);
  }

  json Envelope() const {
    return {{"id", answer_.id},
            {"object", "text_completion"},
            {"created", answer_.created},
            {"model", context_->model_name()},
            {"system_fingerprint", context_->options.system_fingerprint}};
  }

  json ChoiceJson(size_t index, const ChoiceFinished* finished) {
    Choice& choice = choices_[index];
    json out = {{"index", index},
                {"text", std::move(choice.text)},
                {"logprobs", nullptr},
                {"finish_reason", nullptr}};
    choice.text.clear();
    if (finished != nullptr) {
      out["finish_reason"] = FinishReasonName(finished->reason);
      out["stop_reason"] = StopReason(*finished);
    }
    if (answer_.logprobs) {
      out["logprobs"] =
          CompletionLogprobs(*context_->tokenizer, choice.logprobs, &choice.text_offset);
      choice.logprobs.clear();
    }
    if (answer_.output.return_token_ids) {
      out["token_ids"] = std::move(choice.token_ids);
      choice.token_ids.clear();
      if (!answer_.output.stream) {
        out["prompt_token_ids"] =
            answer_.prompts[index / static_cast<size_t>(answer_.choices_per_prompt)];
      }
    }
    return out;
  }

  // The text that a token brought. Its chunks are alike unless they tell of tokens one by
  // one.
  void SendText(size_t index) {
    Choice& choice = choices_[index];
    if (answer_.logprobs || answer_.output.return_token_ids ||
        answer_.output.continuous_usage) {
      SendChunk(index, nullptr);
      return;
    }
    if (!choice.text_chunk.has_value()) {
      std::string text = std::exchange(choice.text, std::string(EventTemplate::kHole));
      choice.text_chunk.emplace(ChunkText(index, nullptr));
      choice.text = std::move(text);
    }
    writer_->Write(choice.text_chunk->Fill(choice.text));
    choice.text.clear();
  }

  void SendChunk(size_t index, const ChoiceFinished* finished) {
    writer_->Write(ChunkText(index, finished));
  }

  std::string ChunkText(size_t index, const ChoiceFinished* finished) {
    json chunk = Envelope();
    chunk["choices"] = json::array({ChoiceJson(index, finished)});
    if (answer_.output.continuous_usage) {
      RequestUsage usage;
      usage.prompt_tokens = answer_.prompt_tokens;
      usage.completion_tokens = num_tokens_;
      chunk["usage"] = UsageJson(usage, 0);
    } else if (answer_.output.include_usage) {
      chunk["usage"] = nullptr;
    }
    return SseEvent(chunk);
  }

  const ApiContext* context_;
  std::shared_ptr<ResponseWriter> writer_;
  const CompletionAnswer answer_;
  std::vector<Choice> choices_;
  int64_t num_tokens_ = 0;
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
  if (!fields.ok()) {
    return FromFieldError(error);
  }
  if (best_of.has_value() && *best_of != out->spec.n.value_or(1)) {
    return UnsupportedError("best_of", "best_of other than n is not supported");
  }
  if (out->echo && out->spec.logprobs.has_value()) {
    return UnsupportedError("echo", "logprobs of the prompt are not supported");
  }
  if (out->echo && suffix.has_value()) {
    return UnsupportedError("echo", "a prompt with a suffix can't be echoed");
  }
  return ReadPrompts(context, body, suffix, out);
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
  answer.logprobs = request.spec.logprobs.has_value();
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
