// ApiContext: what every route handler gets: the options of the API, the engine behind it
// and the immutable text parts of the model. Owned by ApiService. It holds no per-request
// state.
#ifndef TESSERA_COORDINATOR_API_API_CONTEXT_H_
#define TESSERA_COORDINATOR_API_API_CONTEXT_H_

#include <atomic>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "common/clock.h"
#include "coordinator/api/access/access_config.h"
#include "coordinator/api/access/rate_limiter.h"
#include "coordinator/api/api_observer.h"
#include "coordinator/api/idempotency/idempotency_store.h"
#include "coordinator/grammar/grammar_pool.h"
#include "coordinator/requests/engine.h"
#include "coordinator/requests/validated_request.h"
#include "model/chat/chat_encoding.h"
#include "model/tokenizer/tokenizer.h"

namespace tessera::coordinator {

struct ApiServiceOptions {
  // Served names; answers carry the first, the others are aliases. At least one.
  std::vector<std::string> model_names;
  RequestLimits limits;
  // Whether a chat request thinks when it does not say.
  bool default_thinking = false;
  // Put before text prompts of /v1/completions and before /tokenize's text (unless the
  // client says add_special_tokens: false); absent where the tokenizer's add_bos_token is
  // false.
  std::optional<int32_t> bos_token_id;
  // Without keys every route is open.
  AccessConfig access;
  // True: /metrics needs a key as well.
  bool metrics_need_key = false;
  // Origins that browsers may call from; "*" is any. None: same origin only.
  std::vector<std::string> allowed_origins;
  MetricNames metric_names = MetricNames::kAll;
  int64_t model_created = 0;       // seconds since 1970, of the checkpoint
  std::string system_fingerprint;  // build, checkpoint and numerics id
  std::string version = "0";
  std::string revision;
  // Seeds of requests that bring none, and request ids, derive from it; absent: random.
  std::optional<uint64_t> seed;
  IdempotencyOptions idempotency;
  int32_t max_messages = 1000;
  int32_t max_prompts = 32;  // of one /v1/completions request
  int32_t max_tools = 128;
  int32_t max_json_depth = 32;
  int32_t max_tokenize_ids = 1 << 20;
};

// Unique ids and default seeds, from a counter-based generator. Thread-safe.
class RequestIds {
 public:
  explicit RequestIds(uint64_t seed) : seed_(seed) {}

  // `prefix` and 32 hexadecimal digits.
  std::string NextId(std::string_view prefix);

  uint64_t NextSeed();

 private:
  const uint64_t seed_;
  std::atomic<uint64_t> next_id_{0};
  std::atomic<uint64_t> next_seed_{0};
};

// Pointers outlive the service; `observer` and `metrics` are never null.
struct ApiContext {
  ApiServiceOptions options;
  const model::Tokenizer* tokenizer = nullptr;
  const model::ChatEncoding* chat = nullptr;
  Engine* engine = nullptr;
  RateLimiter* rates = nullptr;
  GrammarPool* grammars = nullptr;  // null: structured output is refused
  Clock* clock = nullptr;
  ApiObserver* observer = nullptr;
  MetricsText* metrics = nullptr;
  RequestIds* ids = nullptr;
  // Text longer than this has more tokens than the context: refused without tokenising
  // it.
  size_t max_prompt_bytes = 0;

  const std::string& model_name() const { return options.model_names.front(); }
  bool ServesModel(std::string_view name) const;
};

}  // namespace tessera::coordinator

#endif  // TESSERA_COORDINATOR_API_API_CONTEXT_H_
