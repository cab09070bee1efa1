#include "coordinator/api/chat_responder.h"

#include <utility>

#include "nlohmann/json.hpp"

#include "coordinator/api/errors.h"
#include "coordinator/api/http/event_template.h"
#include "coordinator/api/json_fields.h"
#include "coordinator/api/response_json.h"

namespace tessera::coordinator {

using nlohmann::json;

namespace {

constexpr char kWhole[] = "chat.completion";
constexpr char kChunk[] = "chat.completion.chunk";
constexpr char kContent[] = "content";
constexpr char kReasoning[] = "reasoning_content";

json ToolCallJson(const model::ToolCall& call) {
  return {{"id", call.id},
          {"type", "function"},
          {"function", {{"name", call.name}, {"arguments", call.arguments}}}};
}

}  // namespace

struct ChatResponder::Choice {
  explicit Choice(TurnReader reader) : turn(std::move(reader)) {}

  TurnReader turn;
  std::string reasoning;
  std::string content;
  std::vector<model::ToolCall> tool_calls;
  // Not sent yet; logprobs of reasoning and of everything after it are kept apart.
  json reasoning_logprobs = json::array();
  json content_logprobs = json::array();
  std::vector<int32_t> token_ids;
  std::optional<ChoiceFinished> finished;
  // Of a stream's chunks of that kind, from the first one on.
  std::optional<EventTemplate> content_event;
  std::optional<EventTemplate> reasoning_event;
};

ChatResponder::ChatResponder(const ApiContext* context,
                             std::shared_ptr<ResponseWriter> writer, ChatAnswer answer)
    : context_(context), writer_(std::move(writer)), answer_(std::move(answer)) {
  for (int32_t i = 0; i < answer_.num_choices; ++i) {
    choices_.emplace_back(TurnReader(context_, "call_", answer_.thinking));
  }
}

ChatResponder::~ChatResponder() = default;

void ChatResponder::Begin() {
  if (!answer_.output.stream) {
    return;
  }
  writer_->StartStream(SseHead());
  for (size_t i = 0; i < choices_.size(); ++i) {
    // The first chunk of a choice carries no logprobs: SDK helpers would count them
    // twice.
    SendDelta(i, {{"role", "assistant"}, {"content", ""}}, nullptr);
  }
}

void ChatResponder::Token(size_t /*prompt*/, const TokenEvent& event) {
  const auto index = static_cast<size_t>(event.choice);
  Choice& choice = choices_[index];
  ++num_tokens_;
  if (answer_.prompt_logprobs && event.choice == 0 && event.index == 0) {
    prompt_scores_ = event.prompt;
  }
  if (answer_.output.return_token_ids) {
    choice.token_ids.push_back(event.token);
  }
  auto delta = choice.turn.Token(event);
  if (answer_.logprobs) {
    (choice.turn.in_reasoning() ? choice.reasoning_logprobs : choice.content_logprobs)
        .push_back(ChatLogprob(*context_->tokenizer, event));
  }
  Absorb(index, std::move(delta));
}

void ChatResponder::ChoiceDone(size_t /*prompt*/, const ChoiceFinished& event) {
  const auto index = static_cast<size_t>(event.choice);
  Choice& choice = choices_[index];
  Absorb(index, choice.turn.Rest(event));
  Absorb(index, choice.turn.Finish());
  choice.finished = event;
  if (answer_.output.stream) {
    SendDelta(index, json::object(), &event);
  }
}

void ChatResponder::Absorb(size_t index, TurnReader::Delta delta) {
  Choice& choice = choices_[index];
  const bool stream = answer_.output.stream;
  if (stream && !delta.reasoning.empty()) {
    SendText(index, kReasoning, delta.reasoning);
  }
  if (stream && !delta.content.empty()) {
    SendText(index, kContent, delta.content);
  }
  for (model::ToolCall& call : delta.tool_calls) {
    if (stream) {
      SendToolCall(index, call, choice.tool_calls.size());
    }
    choice.tool_calls.push_back(std::move(call));
  }
  // A stream does not need its past, only whole answers do.
  if (!stream) {
    choice.reasoning += delta.reasoning;
    choice.content += delta.content;
  }
}

void ChatResponder::SendToolCall(size_t index, const model::ToolCall& call,
                                 size_t call_index) {
  // Two chunks: clients expect the name with empty arguments first, then fragments of
  // them.
  json head = ToolCallJson(call);
  head["index"] = call_index;
  head["function"]["arguments"] = "";
  SendDelta(index, {{"tool_calls", json::array({std::move(head)})}}, nullptr);
  const json rest = {{"index", call_index},
                     {"function", {{"arguments", call.arguments}}}};
  SendDelta(index, {{"tool_calls", json::array({rest})}}, nullptr);
}

json ChatResponder::Envelope(const char* object) const {
  return {{"id", answer_.id},
          {"object", object},
          {"created", answer_.created},
          {"model", context_->model_name()},
          {"system_fingerprint", context_->options.system_fingerprint},
          {"service_tier", "default"}};
}

json ChatResponder::LogprobsJson(Choice* choice) const {
  if (!answer_.logprobs) {
    return nullptr;
  }
  json out = {{"content", std::exchange(choice->content_logprobs, json::array())},
              {"refusal", nullptr}};
  if (answer_.thinking) {
    out["reasoning_content"] = std::exchange(choice->reasoning_logprobs, json::array());
  }
  return out;
}

namespace {

std::string FinishName(const ChoiceFinished& finished, bool called_tools) {
  if (called_tools && finished.reason == FinishReason::kStop) {
    return "tool_calls";
  }
  return FinishReasonName(finished.reason);
}

}  // namespace

// Chunks of text are alike unless they tell of tokens one by one.
void ChatResponder::SendText(size_t index, const char* kind, const std::string& text) {
  if (answer_.logprobs || answer_.output.return_token_ids ||
      answer_.output.continuous_usage) {
    SendDelta(index, {{kind, text}}, nullptr);
    return;
  }
  Choice& choice = choices_[index];
  auto& event = kind == kContent ? choice.content_event : choice.reasoning_event;
  if (!event.has_value()) {
    event.emplace(DeltaEvent(index, {{kind, EventTemplate::kHole}}, nullptr));
  }
  writer_->Write(event->Fill(text));
}

void ChatResponder::SendDelta(size_t index, json delta, const ChoiceFinished* finished) {
  writer_->Write(DeltaEvent(index, std::move(delta), finished));
}

std::string ChatResponder::DeltaEvent(size_t index, json delta,
                                      const ChoiceFinished* finished) {
  Choice& choice = choices_[index];
  const bool first = delta.contains("role");
  json out = {{"index", index},
              {"delta", std::move(delta)},
              {"logprobs", first ? json(nullptr) : LogprobsJson(&choice)},
              {"finish_reason", nullptr}};
  if (finished != nullptr) {
    out["finish_reason"] = FinishName(*finished, !choice.tool_calls.empty());
    out["stop_reason"] = StopReason(*finished);
  }
  if (answer_.output.return_token_ids) {
    out["token_ids"] = std::exchange(choice.token_ids, {});
  }
  json chunk = Envelope(kChunk);
  chunk["choices"] = json::array({std::move(out)});
  if (answer_.output.continuous_usage) {
    RequestUsage usage;
    usage.prompt_tokens = static_cast<int64_t>(answer_.prompt_ids.size());
    usage.completion_tokens = num_tokens_;
    chunk["usage"] = UsageJson(usage, reasoning_tokens());
  } else if (answer_.output.include_usage) {
    chunk["usage"] = nullptr;
  }
  return SseEvent(chunk);
}

json ChatResponder::MessageJson(const Choice& choice) const {
  json message = {{"role", "assistant"},
                  {"content", choice.content},
                  {"refusal", nullptr},
                  {"annotations", json::array()}};
  if (!choice.reasoning.empty() || answer_.thinking) {
    message["reasoning_content"] = choice.reasoning;
  }
  if (!choice.tool_calls.empty()) {
    message["tool_calls"] = json::array();
    for (const model::ToolCall& call : choice.tool_calls) {
      message["tool_calls"].push_back(ToolCallJson(call));
    }
    if (choice.content.empty()) {
      message["content"] = nullptr;
    }
  }
  return message;
}

void ChatResponder::Done(const RequestUsage& usage) {
  if (answer_.output.stream) {
    if (answer_.output.include_usage) {
      json chunk = Envelope(kChunk);
      chunk["choices"] = json::array();
      chunk["usage"] = UsageJson(usage, reasoning_tokens());
      writer_->Write(SseEvent(chunk));
    }
    writer_->Write(kSseDone);
    writer_->Finish(/*close=*/false);
    return;
  }
  json body = Envelope(kWhole);
  body["choices"] = json::array();
  for (size_t i = 0; i < choices_.size(); ++i) {
    Choice& choice = choices_[i];
    const ChoiceFinished finished = choice.finished.value_or(ChoiceFinished());
    json out = {{"index", i},
                {"message", MessageJson(choice)},
                {"logprobs", LogprobsJson(&choice)},
                {"finish_reason", FinishName(finished, !choice.tool_calls.empty())},
                {"stop_reason", StopReason(finished)}};
    if (answer_.output.return_token_ids) {
      out["token_ids"] = choice.token_ids;
    }
    body["choices"].push_back(std::move(out));
  }
  if (answer_.output.return_token_ids) {
    body["prompt_token_ids"] = answer_.prompt_ids;
  }
  if (answer_.prompt_logprobs) {
    body["prompt_logprobs"] = PromptLogprobsJson(*context_->tokenizer, prompt_scores_);
  }
  body["usage"] = UsageJson(usage, reasoning_tokens());
  HttpResponse response;
  response.body = DumpJson(body);
  writer_->Respond(std::move(response));
}

void ChatResponder::Fail(const ApiError& error, bool begun) {
  if (begun && answer_.output.stream) {
    writer_->Write("data: " + ErrorBody(error) + "\n\n");
    writer_->Finish(/*close=*/true);
  } else {
    writer_->Respond(ErrorResponse(error));
  }
}

int64_t ChatResponder::reasoning_tokens() const {
  int64_t total = 0;
  for (const Choice& choice : choices_) {
    total += choice.turn.reasoning_tokens();
  }
  return total;
}

}  // namespace tessera::coordinator
