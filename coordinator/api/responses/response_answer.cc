#include "coordinator/api/responses/response_answer.h"

#include <utility>

#include "coordinator/api/json_fields.h"
#include "coordinator/api/response_json.h"

namespace tessera::coordinator {
namespace {

using nlohmann::json;
using Kind = TurnBlock::Kind;

constexpr char kInProgress[] = "in_progress";

const char* StatusOf(const TurnBlock& block) {
  return block.cut ? "incomplete" : "completed";
}

json UsageOf(const TurnEnd& end) {
  const RequestUsage& usage = end.usage;
  return {{"input_tokens", usage.prompt_tokens},
          {"input_tokens_details",
           {{"cached_tokens", usage.cached_prompt_tokens},
            {kHostCachedTokens, usage.host_cached_prompt_tokens},
            {kDiskCachedTokens, usage.disk_cached_prompt_tokens},
            {"cache_write_tokens", 0}}},
          {"output_tokens", usage.completion_tokens},
          {"output_tokens_details", {{"reasoning_tokens", end.reasoning_tokens}}},
          {"total_tokens", usage.prompt_tokens + usage.completion_tokens}};
}

}  // namespace

ResponseAnswer::ResponseAnswer(RequestIds* ids, const model::Tokenizer* tokenizer,
                               json settings)
    : ids_(ids), tokenizer_(tokenizer), settings_(std::move(settings)) {}

json ResponseAnswer::Logprobs(const TurnBlock& block, size_t first) const {
  json out = json::array();
  for (size_t i = first; i < block.tokens.size(); ++i) {
    out.push_back(ChatLogprob(*tokenizer_, block.tokens[i]));
  }
  return out;
}

json ResponseAnswer::Part(const TurnBlock& block) const {
  if (block.kind == Kind::kReasoning) {
    return {{"type", "reasoning_text"}, {"text", block.text}};
  }
  return {{"type", "output_text"},
          {"text", block.text},
          {"annotations", json::array()},
          {"logprobs", Logprobs(block)}};
}

std::string ResponseAnswer::Event(json event) {
  event["sequence_number"] = next_number_++;
  return NamedSseEvent(event);
}

json ResponseAnswer::ItemEvent(const char* type, size_t index) {
  return {{"type", type}, {"output_index", index}};
}

json ResponseAnswer::PartEvent(const char* type, size_t index) {
  json event = ItemEvent(type, index);
  event["item_id"] = item_ids_[index];
  event["content_index"] = 0;
  return event;
}

const std::string& ResponseAnswer::ItemId(size_t index, const TurnBlock& block) {
  // Blocks come in their order, so that at most one id is missing.
  if (index == item_ids_.size()) {
    const char* prefix = block.kind == Kind::kReasoning ? "rs_"
                         : block.kind == Kind::kText    ? "msg_"
                                                        : "fc_";
    item_ids_.push_back(ids_->NextId(prefix));
  }
  return item_ids_[index];
}

json ResponseAnswer::Item(size_t index, const TurnBlock& block, const char* status) {
  json item = {{"id", ItemId(index, block)}, {"status", status}};
  if (block.kind == Kind::kCall) {
    item["type"] = "function_call";
    item["call_id"] = block.call.id;
    item["name"] = block.call.name;
    item["arguments"] = block.call.arguments;
    return item;
  }
  item["content"] = json::array();
  if (status != kInProgress) {
    item["content"].push_back(Part(block));
  }
  if (block.kind == Kind::kReasoning) {
    item["type"] = "reasoning";
    item["summary"] = json::array();
  } else {
    item["type"] = "message";
    item["role"] = "assistant";
  }
  return item;
}

json ResponseAnswer::Response(const char* status, const std::vector<TurnBlock>& blocks) {
  json response = settings_;
  response["object"] = "response";
  response["status"] = status;
  response["error"] = nullptr;
  response["incomplete_details"] = nullptr;
  response["usage"] = nullptr;
  response["output"] = json::array();
  for (size_t i = 0; i < blocks.size(); ++i) {
    response["output"].push_back(Item(i, blocks[i], StatusOf(blocks[i])));
  }
  return response;
}

json ResponseAnswer::Ended(const std::vector<TurnBlock>& blocks, const TurnEnd& end) {
  const bool cut = end.finished.reason == FinishReason::kLength;
  json response = Response(cut ? "incomplete" : "completed", blocks);
  response["usage"] = UsageOf(end);
  if (cut) {
    response["incomplete_details"] = {{"reason", "max_output_tokens"}};
  }
  return response;
}

std::string ResponseAnswer::Begin() {
  const json response = Response(kInProgress, {});
  // One after the other: operands of + may be evaluated in any order, numbers may not.
  std::string events = Event({{"type", "response.created"}, {"response", response}});
  events += Event({{"type", "response.in_progress"}, {"response", response}});
  return events;
}

std::string ResponseAnswer::Open(size_t index, const TurnBlock& block) {
  TurnBlock empty = block;  // its deltas bring all it holds
  empty.text.clear();
  empty.tokens.clear();
  empty.call.arguments.clear();
  json added = ItemEvent("response.output_item.added", index);
  added["item"] = Item(index, empty, kInProgress);
  std::string events = Event(std::move(added));
  if (block.kind != Kind::kCall) {
    json part = PartEvent("response.content_part.added", index);
    part["part"] = Part(empty);
    events += Event(std::move(part));
  }
  return events;
}

json ResponseAnswer::TextDelta(size_t index, TurnBlock::Kind kind,
                               std::string_view piece) {
  const bool reasoning = kind == Kind::kReasoning;
  json event = PartEvent(
      reasoning ? "response.reasoning_text.delta" : "response.output_text.delta", index);
  if (!reasoning) {
    event["logprobs"] = json::array();
  }
  event["delta"] = piece;
  return event;
}

std::string ResponseAnswer::Append(size_t index, const TurnBlock& block,
                                   std::string_view piece) {
  if (block.kind == Kind::kCall) {
    json event = PartEvent("response.function_call_arguments.delta", index);
    event.erase("content_index");
    event["delta"] = piece;
    return Event(std::move(event));
  }
  if (!block.tokens.empty()) {
    json event = TextDelta(index, block.kind, piece);
    event["logprobs"] =
        Logprobs(block, std::exchange(num_shown_tokens_, block.tokens.size()));
    return Event(std::move(event));
  }
  if (!delta_.has_value()) {
    json event = TextDelta(index, block.kind, EventTemplate::kHole);
    event["sequence_number"] = EventTemplate::kNumberHole;
    delta_.emplace(NamedSseEvent(event));
  }
  return delta_->Fill(piece, next_number_++);
}

std::string ResponseAnswer::Close(size_t index, const TurnBlock& block) {
  delta_.reset();
  num_shown_tokens_ = 0;
  std::string events;
  if (block.kind == Kind::kCall) {
    json done = PartEvent("response.function_call_arguments.done", index);
    done.erase("content_index");
    done["name"] = block.call.name;
    done["arguments"] = block.call.arguments;
    events = Event(std::move(done));
  } else {
    const bool reasoning = block.kind == Kind::kReasoning;
    json text = PartEvent(
        reasoning ? "response.reasoning_text.done" : "response.output_text.done", index);
    text["text"] = block.text;
    if (!reasoning) {
      text["logprobs"] = Logprobs(block);
    }
    json part = PartEvent("response.content_part.done", index);
    part["part"] = Part(block);
    events = Event(std::move(text));
    events += Event(std::move(part));
  }
  json done = ItemEvent("response.output_item.done", index);
  done["item"] = Item(index, block, StatusOf(block));
  events += Event(std::move(done));
  return events;
}

std::string ResponseAnswer::End(const std::vector<TurnBlock>& blocks,
                                const TurnEnd& end) {
  json response = Ended(blocks, end);
  const std::string type = "response." + response["status"].get<std::string>();
  return Event({{"type", type}, {"response", std::move(response)}});
}

std::string ResponseAnswer::Fail(const std::vector<TurnBlock>& blocks,
                                 const ApiError& error) {
  json response = Response("failed", blocks);
  response["error"] = {
      {"code", error.status == 429 ? "rate_limit_exceeded" : "server_error"},
      {"message", error.message}};
  return Event({{"type", "response.failed"}, {"response", std::move(response)}});
}

HttpResponse ResponseAnswer::Whole(const std::vector<TurnBlock>& blocks,
                                   const TurnEnd& end) {
  HttpResponse response;
  response.body = DumpJson(Ended(blocks, end));
  return response;
}

HttpResponse ResponseAnswer::Refuse(const ApiError& error) {
  return ErrorResponse(error);
}

}  // namespace tessera::coordinator
