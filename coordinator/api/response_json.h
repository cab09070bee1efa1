// The pieces of JSON that completion and chat answers share: usage, logprobs, finish
// reasons, and the framing of server-sent events.
#ifndef TESSERA_COORDINATOR_API_RESPONSE_JSON_H_
#define TESSERA_COORDINATOR_API_RESPONSE_JSON_H_

#include <cstdint>
#include <string>
#include <vector>

#include "nlohmann/json_fwd.hpp"

#include "coordinator/api/http_message.h"
#include "coordinator/requests/engine.h"
#include "model/tokenizer/tokenizer.h"

namespace tessera::coordinator {

// One event: "data: <one line>\n\n".
std::string SseEvent(const nlohmann::json& value);

// One event with a name, its `type`: "event: <type>\ndata: <one line>\n\n".
std::string NamedSseEvent(const nlohmann::json& value);

// The event that ends a stream which is complete.
inline constexpr char kSseDone[] = "data: [DONE]\n\n";

// Status 200 and the headers that keep proxies from buffering.
HttpResponse SseHead();

// An addition of Tessera's to the usage objects of every dialect, beside the field that
// counts the tokens which the prefix cache gave: those of them that came back from the
// host tier, and from the disk tier. Official clients keep or ignore them.
inline constexpr char kHostCachedTokens[] = "host_cached_tokens";
inline constexpr char kDiskCachedTokens[] = "disk_cached_tokens";

// prompt_tokens, completion_tokens, total_tokens, their details, and DeepSeek's cache hit
// and miss.
nlohmann::json UsageJson(const RequestUsage& usage, int64_t reasoning_tokens);

// -9999.0 stands in for what JSON can't hold.
double JsonLogprob(float logprob);

// The text of one token, bytes that are no UTF-8 replaced.
std::string TokenText(const model::Tokenizer& tokenizer, int32_t token);

// Its bytes as a list of numbers: a token can be half a character.
nlohmann::json TokenBytesJson(const model::Tokenizer& tokenizer, int32_t token);

// {token, logprob, bytes, top_logprobs} of the chat routes.
nlohmann::json ChatLogprob(const model::Tokenizer& tokenizer, const TokenEvent& event);

// {tokens, token_logprobs, top_logprobs, text_offset} of /v1/completions. `text_offset`
// is the position in characters of the first token and is moved behind the last.
nlohmann::json CompletionLogprobs(const model::Tokenizer& tokenizer,
                                  const std::vector<TokenEvent>& events,
                                  int64_t* text_offset);

// vLLM's prompt_logprobs: null for the first token, then for each an object from token id
// to {logprob, rank, decoded_token}: its own and the best. A rank is null unless the
// token is among the best. `scores`: from the second token on.
nlohmann::json PromptLogprobsJson(const model::Tokenizer& tokenizer,
                                  const std::vector<proto::SampledToken>& scores);

// "stop" or "length".
const char* FinishReasonName(FinishReason reason);

// vLLM's stop_reason: the stop string, the stop token's id, or null.
nlohmann::json StopReason(const ChoiceFinished& event);

}  // namespace tessera::coordinator

#endif  // TESSERA_COORDINATOR_API_RESPONSE_JSON_H_
