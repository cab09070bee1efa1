#include "coordinator/api/anthropic/anthropic_answer.h"

#include <utility>

#include "nlohmann/json.hpp"

#include "coordinator/api/anthropic/anthropic_errors.h"
#include "coordinator/api/json_fields.h"
#include "coordinator/api/response_json.h"

namespace tessera::coordinator {
namespace {

using nlohmann::json;
using Kind = TurnBlock::Kind;

// input_tokens leaves out what the cache gave.
json UsageOf(const RequestUsage& usage, int64_t reasoning_tokens) {
  return {{"input_tokens", usage.prompt_tokens - usage.cached_prompt_tokens},
          {"cache_read_input_tokens", usage.cached_prompt_tokens},
          {kHostCachedTokens, usage.host_cached_prompt_tokens},
          {kDiskCachedTokens, usage.disk_cached_prompt_tokens},
          {"cache_creation_input_tokens", 0},
          {"output_tokens", usage.completion_tokens},
          {"output_tokens_details", {{"thinking_tokens", reasoning_tokens}}}};
}

// The input of a call as text, in the words of the model: sent back, it is the same
// prompt. A call that the token limit cut off is not whole JSON: what there is of it goes
// under the name that Anthropic's reference gives to such text.
std::string InputText(const model::ToolCall& call) {
  if (json::parse(call.arguments, nullptr, /*allow_exceptions=*/false).is_object()) {
    return call.arguments;
  }
  return DumpJson(call.arguments.empty() ? json::object()
                                         : json{{"INVALID_JSON", call.arguments}});
}

// `object`, which has members, with one more whose value is `text`.
std::string WithMember(const json& object, std::string_view name, std::string_view text) {
  std::string out = DumpJson(object);
  out.back() = ',';
  out += DumpJson(json(name));
  out += ':';
  out += text;
  out += '}';
  return out;
}

// Of a call without its input.
json BlockJson(const TurnBlock& block, const std::string& signature) {
  switch (block.kind) {
    case Kind::kReasoning:
      return {{"type", "thinking"}, {"thinking", block.text}, {"signature", signature}};
    case Kind::kText:
      return {{"type", "text"}, {"text", block.text}, {"citations", nullptr}};
    case Kind::kCall:
      break;
  }
  return {{"type", "tool_use"}, {"id", block.call.id}, {"name", block.call.name}};
}

json DeltaEvent(size_t index, json delta) {
  return {{"type", "content_block_delta"}, {"index", index}, {"delta", std::move(delta)}};
}

// stop_reason and stop_sequence.
json StopJson(const std::vector<TurnBlock>& blocks, const ChoiceFinished& finished) {
  json out = {{"stop_reason", "end_turn"}, {"stop_sequence", nullptr}};
  if (finished.reason == FinishReason::kLength) {
    out["stop_reason"] = "max_tokens";
  } else if (finished.stop_string.has_value()) {
    out["stop_reason"] = "stop_sequence";
    out["stop_sequence"] = *finished.stop_string;
  } else if (!blocks.empty() && blocks.back().kind == Kind::kCall) {
    out["stop_reason"] = "tool_use";
  }
  return out;
}

}  // namespace

AnthropicAnswer::AnthropicAnswer(Facts facts) : facts_(std::move(facts)) {}

json AnthropicAnswer::Message() const {
  return {{"id", facts_.id},         {"type", "message"},        {"role", "assistant"},
          {"model", facts_.model},   {"content", json::array()}, {"stop_reason", nullptr},
          {"stop_sequence", nullptr}};
}

std::string AnthropicAnswer::Begin() {
  json message = Message();
  RequestUsage usage;
  usage.prompt_tokens = facts_.prompt_tokens;
  message["usage"] = UsageOf(usage, 0);
  return NamedSseEvent({{"type", "message_start"}, {"message", std::move(message)}}) +
         NamedSseEvent({{"type", "ping"}});
}

std::string AnthropicAnswer::Open(size_t index, const TurnBlock& block) {
  // Blocks open empty; their deltas bring all they hold.
  TurnBlock empty;
  empty.kind = block.kind;
  empty.call.id = block.call.id;
  empty.call.name = block.call.name;
  json opened = BlockJson(empty, "");
  if (block.kind == Kind::kCall) {
    opened["input"] = json::object();
  }
  return NamedSseEvent({{"type", "content_block_start"},
                        {"index", index},
                        {"content_block", std::move(opened)}});
}

std::string AnthropicAnswer::TextDelta(size_t index, TurnBlock::Kind kind,
                                       std::string_view piece) const {
  if (kind == Kind::kReasoning) {
    return NamedSseEvent(
        DeltaEvent(index, {{"type", "thinking_delta"}, {"thinking", piece}}));
  }
  return NamedSseEvent(DeltaEvent(index, {{"type", "text_delta"}, {"text", piece}}));
}

std::string AnthropicAnswer::Append(size_t index, const TurnBlock& block,
                                    std::string_view piece) {
  if (block.kind == Kind::kCall) {
    return NamedSseEvent(
        DeltaEvent(index, {{"type", "input_json_delta"}, {"partial_json", piece}}));
  }
  if (!delta_.has_value()) {
    delta_.emplace(TextDelta(index, block.kind, EventTemplate::kHole));
  }
  return delta_->Fill(piece);
}

std::string AnthropicAnswer::Close(size_t index, const TurnBlock& block) {
  delta_.reset();
  std::string events;
  if (block.kind == Kind::kReasoning) {
    events = NamedSseEvent(
        DeltaEvent(index, {{"type", "signature_delta"}, {"signature", facts_.id}}));
  }
  return events + NamedSseEvent({{"type", "content_block_stop"}, {"index", index}});
}

std::string AnthropicAnswer::End(const std::vector<TurnBlock>& blocks,
                                 const TurnEnd& end) {
  return NamedSseEvent({{"type", "message_delta"},
                        {"delta", StopJson(blocks, end.finished)},
                        {"usage", UsageOf(end.usage, end.reasoning_tokens)}}) +
         NamedSseEvent({{"type", "message_stop"}});
}

std::string AnthropicAnswer::Fail(const std::vector<TurnBlock>& /*blocks*/,
                                  const ApiError& error) {
  return NamedSseEvent(AnthropicErrorJson(error, facts_.request_id));
}

HttpResponse AnthropicAnswer::Whole(const std::vector<TurnBlock>& blocks,
                                    const TurnEnd& end) {
  std::string content = "[";
  for (const TurnBlock& block : blocks) {
    content += content.size() == 1 ? "" : ",";
    const json shown = BlockJson(block, facts_.id);
    content += block.kind == Kind::kCall
                   ? WithMember(shown, "input", InputText(block.call))
                   : DumpJson(shown);
  }
  content += ']';
  json message = Message();
  message.erase("content");
  message.update(StopJson(blocks, end.finished));
  message["usage"] = UsageOf(end.usage, end.reasoning_tokens);
  HttpResponse response;
  response.body = WithMember(message, "content", content);
  return response;
}

HttpResponse AnthropicAnswer::Refuse(const ApiError& error) {
  return AnthropicErrorResponse(error, facts_.request_id);
}

}  // namespace tessera::coordinator
