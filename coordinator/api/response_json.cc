#include "coordinator/api/response_json.h"

#include <algorithm>
#include <cmath>

#include "nlohmann/json.hpp"

#include "coordinator/api/json_fields.h"

namespace tessera::coordinator {
namespace {

using nlohmann::json;

// The value that OpenAI's own answers hold for a token of probability zero.
constexpr double kMinusInfinity = -9999.0;

json OneLogprob(const model::Tokenizer& tokenizer, int32_t token, float logprob) {
  return {{"token", TokenText(tokenizer, token)},
          {"logprob", JsonLogprob(logprob)},
          {"bytes", TokenBytesJson(tokenizer, token)}};
}

int64_t CountCharacters(std::string_view text) {
  return std::count_if(text.begin(), text.end(), [](char c) {
    return (static_cast<unsigned char>(c) & 0xC0) != 0x80;
  });
}

}  // namespace

std::string SseEvent(const json& value) { return "data: " + DumpJson(value) + "\n\n"; }

std::string NamedSseEvent(const json& value) {
  return "event: " + value.value("type", std::string()) + "\n" + SseEvent(value);
}

HttpResponse SseHead() {
  HttpResponse head;
  head.content_type = "text/event-stream";
  head.headers = {{"Cache-Control", "no-cache"}, {"X-Accel-Buffering", "no"}};
  return head;
}

json UsageJson(const RequestUsage& usage, int64_t reasoning_tokens) {
  return {{"prompt_tokens", usage.prompt_tokens},
          {"completion_tokens", usage.completion_tokens},
          {"total_tokens", usage.prompt_tokens + usage.completion_tokens},
          {"prompt_tokens_details",
           {{"cached_tokens", usage.cached_prompt_tokens},
            {kHostCachedTokens, usage.host_cached_prompt_tokens},
            {kDiskCachedTokens, usage.disk_cached_prompt_tokens}}},
          {"completion_tokens_details",
           {{"reasoning_tokens", reasoning_tokens},
            {"accepted_prediction_tokens", 0},
            {"rejected_prediction_tokens", 0}}},
          {"prompt_cache_hit_tokens", usage.cached_prompt_tokens},
          {"prompt_cache_miss_tokens", usage.prompt_tokens - usage.cached_prompt_tokens}};
}

double JsonLogprob(float logprob) {
  return std::isfinite(logprob) ? std::max<double>(logprob, kMinusInfinity)
                                : kMinusInfinity;
}

std::string TokenText(const model::Tokenizer& tokenizer, int32_t token) {
  const auto text = tokenizer.Decode(std::span(&token, 1), /*skip_special=*/false);
  return text.ok() ? *text : std::string();
}

json TokenBytesJson(const model::Tokenizer& tokenizer, int32_t token) {
  json bytes = json::array();
  for (const char c : tokenizer.TokenBytes(token)) {
    bytes.push_back(static_cast<int>(static_cast<unsigned char>(c)));
  }
  return bytes;
}

json ChatLogprob(const model::Tokenizer& tokenizer, const TokenEvent& event) {
  json out = OneLogprob(tokenizer, event.token, event.logprob);
  out["top_logprobs"] = json::array();
  for (const proto::TokenLogprob& top : event.top) {
    out["top_logprobs"].push_back(OneLogprob(tokenizer, top.token, top.logprob));
  }
  return out;
}

json CompletionLogprobs(const model::Tokenizer& tokenizer,
                        const std::vector<TokenEvent>& events, int64_t* text_offset) {
  json out = {{"tokens", json::array()},
              {"token_logprobs", json::array()},
              {"top_logprobs", json::array()},
              {"text_offset", json::array()}};
  for (const TokenEvent& event : events) {
    const std::string text = TokenText(tokenizer, event.token);
    json top = json::object();
    for (const proto::TokenLogprob& candidate : event.top) {
      top[TokenText(tokenizer, candidate.token)] = JsonLogprob(candidate.logprob);
    }
    // The sampled token is listed even where it is none of the best.
    top[text] = JsonLogprob(event.logprob);
    out["tokens"].push_back(text);
    out["token_logprobs"].push_back(JsonLogprob(event.logprob));
    out["top_logprobs"].push_back(std::move(top));
    out["text_offset"].push_back(*text_offset);
    *text_offset += CountCharacters(text);
  }
  return out;
}

json PromptLogprobsJson(const model::Tokenizer& tokenizer,
                        const std::vector<proto::SampledToken>& scores) {
  json out = json::array({nullptr});
  for (const proto::SampledToken& scored : scores) {
    json tokens = json::object();
    const auto add = [&](int32_t token, float logprob, json rank) {
      tokens[std::to_string(token)] = {{"logprob", JsonLogprob(logprob)},
                                       {"rank", std::move(rank)},
                                       {"decoded_token", TokenText(tokenizer, token)}};
    };
    add(scored.token, scored.logprob, nullptr);
    for (size_t i = 0; i < scored.top.size(); ++i) {
      add(scored.top[i].token, scored.top[i].logprob, i + 1);
    }
    out.push_back(std::move(tokens));
  }
  return out;
}

const char* FinishReasonName(FinishReason reason) {
  return reason == FinishReason::kLength ? "length" : "stop";
}

json StopReason(const ChoiceFinished& event) {
  if (event.stop_string.has_value()) {
    return *event.stop_string;
  }
  return event.stop_token.has_value() ? json(*event.stop_token) : json(nullptr);
}

}  // namespace tessera::coordinator
