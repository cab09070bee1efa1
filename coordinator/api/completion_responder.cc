#include "coordinator/api/completion_responder.h"

#include <algorithm>
#include <numeric>
#include <optional>
#include <utility>

#include "nlohmann/json.hpp"

#include "coordinator/api/errors.h"
#include "coordinator/api/http/event_template.h"
#include "coordinator/api/json_fields.h"
#include "coordinator/api/response_json.h"

namespace tessera::coordinator {

using nlohmann::json;

// Text, logprobs and ids that were not sent yet; the whole answer where it is not
// streamed.
struct CompletionResponder::Choice {
  std::string text;
  std::vector<TokenEvent> logprobs;
  std::vector<int32_t> token_ids;
  int64_t text_offset = 0;
  bool begins_with_prompt = false;  // the first of `logprobs` has none
  double logprob_sum = 0;
  int64_t num_tokens = 0;
  std::optional<ChoiceFinished> finished;
  std::optional<EventTemplate> text_chunk;  // of a stream, from the first token on
};

CompletionResponder::CompletionResponder(const ApiContext* context,
                                         std::shared_ptr<ResponseWriter> writer,
                                         CompletionAnswer answer)
    : context_(context), writer_(std::move(writer)), answer_(std::move(answer)) {
  prompts_.resize(answer_.prompts.size());
  choices_.resize(answer_.prompts.size() *
                  static_cast<size_t>(answer_.choices_per_prompt));
  for (size_t i = 0; i < choices_.size() && !answer_.echoes.empty(); ++i) {
    choices_[i].text =
        answer_.echoes[i / static_cast<size_t>(answer_.choices_per_prompt)];
  }
}

CompletionResponder::~CompletionResponder() = default;

void CompletionResponder::Begin() {
  if (!answer_.output.stream) {
    return;
  }
  writer_->StartStream(SseHead());
  for (size_t i = 0; i < choices_.size() && !waits_for_scores(); ++i) {
    if (!choices_[i].text.empty()) {
      SendChunk(i, nullptr);
    }
  }
}

void CompletionResponder::Token(size_t prompt, const TokenEvent& event) {
  Prompt& about = prompts_[prompt];
  if (about.scored || !waits_for_scores()) {
    if (event.choice == 0 && event.index == 0) {
      about.scores = event.prompt;
    }
    TakeToken(prompt, event);
    return;
  }
  if (event.choice != 0) {
    about.early.emplace_back(event);
    return;
  }
  TakeScores(prompt, event);
  for (const auto& early : std::exchange(about.early, {})) {
    if (const auto* token = std::get_if<TokenEvent>(&early)) {
      TakeToken(prompt, *token);
    } else {
      ChoiceDone(prompt, std::get<ChoiceFinished>(early));
    }
  }
  TakeToken(prompt, event);
}

void CompletionResponder::TakeScores(size_t prompt, const TokenEvent& event) {
  prompts_[prompt].scored = true;
  prompts_[prompt].scores = event.prompt;
  std::vector<TokenEvent> tokens(1);
  tokens[0].token = answer_.prompts[prompt].front();
  for (const proto::SampledToken& scored : event.prompt) {
    TokenEvent& token = tokens.emplace_back();
    token.token = scored.token;
    token.logprob = scored.logprob;
    token.top = scored.top;
    token.top.resize(std::min(token.top.size(), answer_.num_top_logprobs));
  }
  for (int32_t i = 0; i < answer_.choices_per_prompt; ++i) {
    const size_t index = Index(prompt, i);
    choices_[index].logprobs = tokens;
    choices_[index].begins_with_prompt = true;
    if (answer_.output.stream) {
      SendChunk(index, nullptr);
    }
  }
}

void CompletionResponder::TakeToken(size_t prompt, const TokenEvent& event) {
  const size_t index = Index(prompt, event.choice);
  Choice& choice = choices_[index];
  choice.logprob_sum += static_cast<double>(event.logprob);
  ++choice.num_tokens;
  if (answer_.without_output) {
    return;
  }
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

void CompletionResponder::ChoiceDone(size_t prompt, const ChoiceFinished& event) {
  if (waits_for_scores() && !prompts_[prompt].scored) {
    prompts_[prompt].early.emplace_back(event);
    return;
  }
  const size_t index = Index(prompt, event.choice);
  ChoiceFinished finished = event;
  if (answer_.without_output) {
    finished = ChoiceFinished();
    finished.choice = event.choice;
    finished.reason = FinishReason::kLength;
  }
  choices_[index].text += finished.text;
  if (answer_.output.stream) {
    SendChunk(index, &finished);
  } else {
    choices_[index].finished = std::move(finished);
  }
}

void CompletionResponder::Done(const RequestUsage& usage) {
  if (answer_.output.stream) {
    if (answer_.output.include_usage) {
      json chunk = Envelope();
      chunk["choices"] = json::array();
      chunk["usage"] = UsageOf(usage);
      writer_->Write(SseEvent(chunk));
    }
    writer_->Write(kSseDone);
    writer_->Finish(/*close=*/false);
    return;
  }
  json body = Envelope();
  body["choices"] = json::array();
  for (const size_t index : ShownChoices()) {
    const auto& finished = choices_[index].finished;
    json choice = ChoiceJson(index, finished ? &*finished : nullptr);
    choice["index"] = body["choices"].size();
    body["choices"].push_back(std::move(choice));
  }
  body["usage"] = UsageOf(usage);
  HttpResponse response;
  response.body = DumpJson(body);
  writer_->Respond(std::move(response));
}

void CompletionResponder::Fail(const ApiError& error, bool begun) {
  if (begun && answer_.output.stream) {
    writer_->Write("data: " + ErrorBody(error) + "\n\n");
    writer_->Finish(/*close=*/true);
  } else {
    writer_->Respond(ErrorResponse(error));
  }
}

size_t CompletionResponder::Index(size_t prompt, int32_t choice) const {
  return prompt * static_cast<size_t>(answer_.choices_per_prompt) +
         static_cast<size_t>(choice);
}

std::vector<size_t> CompletionResponder::ShownChoices() const {
  const auto mean = [this](size_t index) {
    const Choice& choice = choices_[index];
    return choice.num_tokens == 0
               ? 0.0
               : choice.logprob_sum / static_cast<double>(choice.num_tokens);
  };
  std::vector<size_t> shown;
  for (size_t prompt = 0; prompt < prompts_.size(); ++prompt) {
    std::vector<size_t> order(static_cast<size_t>(answer_.choices_per_prompt));
    std::iota(order.begin(), order.end(), Index(prompt, 0));
    if (answer_.num_shown < answer_.choices_per_prompt) {
      std::stable_sort(order.begin(), order.end(),
                       [&](size_t a, size_t b) { return mean(a) > mean(b); });
    }
    shown.insert(shown.end(), order.begin(), order.begin() + answer_.num_shown);
  }
  return shown;
}

json CompletionResponder::Envelope() const {
  return {{"id", answer_.id},
          {"object", "text_completion"},
          {"created", answer_.created},
          {"model", context_->model_name()},
          {"system_fingerprint", context_->options.system_fingerprint}};
}

json CompletionResponder::UsageOf(RequestUsage usage) const {
  if (answer_.without_output) {
    usage.completion_tokens = 0;
  }
  return UsageJson(usage, 0);
}

json CompletionResponder::ChoiceJson(size_t index, const ChoiceFinished* finished) {
  Choice& choice = choices_[index];
  const size_t prompt = index / static_cast<size_t>(answer_.choices_per_prompt);
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
    if (std::exchange(choice.begins_with_prompt, false)) {
      // Nothing stands before the first token that could have foretold it.
      out["logprobs"]["token_logprobs"][0] = nullptr;
      out["logprobs"]["top_logprobs"][0] = nullptr;
    }
    choice.logprobs.clear();
  }
  if (answer_.prompt_logprobs && !answer_.output.stream) {
    out["prompt_logprobs"] =
        PromptLogprobsJson(*context_->tokenizer, prompts_[prompt].scores);
  }
  if (answer_.output.return_token_ids) {
    out["token_ids"] = std::exchange(choice.token_ids, {});
    if (!answer_.output.stream) {
      out["prompt_token_ids"] = answer_.prompts[prompt];
    }
  }
  return out;
}

void CompletionResponder::SendText(size_t index) {
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

void CompletionResponder::SendChunk(size_t index, const ChoiceFinished* finished) {
  writer_->Write(ChunkText(index, finished));
}

std::string CompletionResponder::ChunkText(size_t index, const ChoiceFinished* finished) {
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

}  // namespace tessera::coordinator
