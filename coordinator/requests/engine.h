// Engine: what a door sees of everything behind it: submit a ValidatedRequest, get
// events, cancel. coordinator/service implements it with the step loop; tests use a fake.
#ifndef TESSERA_COORDINATOR_REQUESTS_ENGINE_H_
#define TESSERA_COORDINATOR_REQUESTS_ENGINE_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"

#include "coordinator/requests/validated_request.h"
#include "proto/step_plan.h"

namespace tessera::coordinator {

enum class FinishReason { kStop, kLength };

// One accepted token of one choice, in order of `index`.
struct TokenEvent {
  int32_t choice = 0;
  int32_t index = 0;  // 0, 1, 2… within the choice
  int32_t token = 0;
  float logprob = 0;
  std::vector<proto::TokenLogprob> top;
  // With the first token of the first choice, if asked for: the prompt's tokens from the
  // second on.
  std::vector<proto::SampledToken> prompt = {};
  // Text that became certain: whole UTF-8 characters, without what may be the start of a
  // stop string.
  std::string text;
};

struct ChoiceFinished {
  int32_t choice = 0;
  FinishReason reason = FinishReason::kStop;
  std::string text;  // the rest that was held back
  std::optional<std::string> stop_string;
  std::optional<int32_t> stop_token;
};

struct RequestUsage {
  int64_t prompt_tokens = 0;
  int64_t cached_prompt_tokens = 0;       // from the prefix cache, in either tier
  int64_t host_cached_prompt_tokens = 0;  // of them, copied back from the host tier
  int64_t disk_cached_prompt_tokens = 0;  // of them, read back from the disk tier
  int64_t completion_tokens = 0;          // all choices
};

// Receives a request's events. Called from the engine's thread, one call at a time, never
// after OnDone or OnError; must not block (post to your own thread). OnDone and OnError
// are the last call, and exactly one of them comes.
class RequestSink {
 public:
  virtual ~RequestSink() = default;
  virtual void OnToken(const TokenEvent& event) = 0;
  virtual void OnChoiceFinished(const ChoiceFinished& event) = 0;
  virtual void OnDone(const RequestUsage& usage) = 0;
  // kDeadlineExceeded, kCancelled, kUnavailable (a rank or shard died), kInternal…
  virtual void OnError(const absl::Status& status) = 0;
};

struct EngineStatus {
  bool ready = false;  // a real step finished on every rank lately, and not draining
  bool draining = false;
  std::string phase;  // "loading", "forming group", "ready", "draining"…
  // Why the engine will never be ready: the model or the options are wrong. Else OK.
  absl::Status fatal;
  int64_t num_running = 0;
  int64_t num_waiting = 0;
  int64_t kv_blocks_total = 0;
  int64_t kv_blocks_used = 0;
};

// Thread-safe.
class Engine {
 public:
  virtual ~Engine() = default;

  // kResourceExhausted: the queue is full (429); kUnavailable: draining or no ready group
  // (503). The sink is kept until its last call.
  virtual absl::Status Submit(ValidatedRequest request,
                              std::shared_ptr<RequestSink> sink) = 0;

  // Ends the request with kCancelled; frees its blocks within two steps. Unknown ids are
  // ignored.
  virtual void Cancel(const std::string& request_id) = 0;

  virtual EngineStatus status() const = 0;

  // How long a client should wait before it tries again after kResourceExhausted, from
  // the drain rate.
  virtual absl::Duration retry_after() const = 0;
};

}  // namespace tessera::coordinator

#endif  // TESSERA_COORDINATOR_REQUESTS_ENGINE_H_
