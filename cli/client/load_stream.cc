#include "cli/client/load_stream.h"

#include "nlohmann/json.hpp"

namespace tessera::cli {
namespace {

using nlohmann::json;

const json* Find(const json& object, const char* key) {
  if (!object.is_object()) {
    return nullptr;
  }
  const auto it = object.find(key);
  return it != object.end() && !it->is_null() ? &*it : nullptr;
}

// Says whether the field is there, even if it is empty.
bool TakeText(const json& object, const char* key, std::string* text) {
  const json* value = Find(object, key);
  const std::string* found =
      value != nullptr ? value->get_ptr<const std::string*>() : nullptr;
  if (found != nullptr) {
    *text += *found;
  }
  return found != nullptr;
}

// From vLLM's token_ids, or from log-probabilities of either dialect.
int32_t CountTokens(const json& choice) {
  const json* logprobs = Find(choice, "logprobs");
  for (const json* list : {Find(choice, "token_ids"),
                           logprobs != nullptr ? Find(*logprobs, "tokens") : nullptr,
                           logprobs != nullptr ? Find(*logprobs, "content") : nullptr}) {
    if (list != nullptr && list->is_array()) {
      return static_cast<int32_t>(list->size());
    }
  }
  return 0;
}

}  // namespace

json LoadRequestBody(const LoadRunOptions& options, const json& extra,
                     const PlannedRequest& request) {
  json body = {{"model", options.model}, {"stream_options", {{"include_usage", true}}}};
  if (options.continuous_usage) {
    body["stream_options"]["continuous_usage_stats"] = true;
  }
  if (options.chat) {
    body["messages"] = {{{"role", "user"}, {"content", request.prompt_text}}};
    body["max_completion_tokens"] = request.output_len;
  } else {
    body["prompt"] = request.prompt_text.empty() ? json(request.prompt_ids)
                                                 : json(request.prompt_text);
    body["max_tokens"] = request.output_len;
  }
  if (options.ignore_eos) {
    body["ignore_eos"] = true;
  }
  body.update(extra);
  return body;
}

ChunkContent ReadChunk(const json& chunk) {
  ChunkContent out;
  const json* choices = Find(chunk, "choices");
  if (choices == nullptr || !choices->is_array() || choices->empty()) {
    return out;
  }
  const json& choice = choices->front();
  out.finishes = Find(choice, "finish_reason") != nullptr;
  out.num_tokens = CountTokens(choice);
  bool has_text = TakeText(choice, "text", &out.text);
  bool calls_tool = false;
  if (const json* delta = Find(choice, "delta")) {
    const bool opens = delta->contains("role");
    // Servers give reasoning one of two names, and some give it both.
    const bool reasons = TakeText(*delta, "reasoning_content", &out.text) ||
                         TakeText(*delta, "reasoning", &out.text);
    const bool speaks = TakeText(*delta, "content", &out.text);
    has_text = (reasons || speaks) && (!opens || !out.text.empty());
    const json* calls = Find(*delta, "tool_calls");
    calls_tool = calls != nullptr && calls->is_array() && !calls->empty();
  }
  out.brings_tokens = calls_tool || (has_text && (!out.finishes || !out.text.empty()));
  return out;
}

std::optional<int64_t> UsageCount(const json& chunk, const char* key) {
  const json* usage = Find(chunk, "usage");
  const json* count = usage != nullptr ? Find(*usage, key) : nullptr;
  return count != nullptr && count->is_number_integer()
             ? std::optional(count->get<int64_t>())
             : std::nullopt;
}

}  // namespace tessera::cli
