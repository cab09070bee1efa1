// ApiObserver and MetricsText: what the API tells the metrics registry, and what /metrics
// asks of it. coordinator/service implements both; the API knows no metric name.
#ifndef TESSERA_COORDINATOR_API_API_OBSERVER_H_
#define TESSERA_COORDINATOR_API_API_OBSERVER_H_

#include <string>
#include <string_view>

#include "absl/time/time.h"

namespace tessera::coordinator {

// Why the edge refused a request before the engine worked on it.
enum class RejectReason { kQueueFull, kRateLimit, kDraining, kTooLarge, kAuth };

// What became of a request with an Idempotency-Key: the first of its key, one that got
// the answer of an earlier one, one that waits for the answer of another, or refused.
enum class IdempotencyOutcome { kFirst, kReplayed, kWaits, kRefused };

// Called from any thread; must be thread-safe and must not block. Default methods do
// nothing.
class ApiObserver {
 public:
  virtual ~ApiObserver() = default;

  virtual void OnHttpStart() {}

  // `route` is a pattern of the route table ("/v1/models/{id}"), "unknown" where none
  // matched, never the raw path. `code` is 499 where the client left before the answer
  // began.
  virtual void OnHttpEnd(std::string_view /*route*/, std::string_view /*method*/,
                         int /*code*/, absl::Duration /*duration*/) {}

  virtual void OnStreamOpen() {}
  virtual void OnStreamClose() {}
  virtual void OnClientDisconnect() {}
  virtual void OnRejected(RejectReason /*reason*/) {}
  virtual void OnIdempotencyKey(IdempotencyOutcome /*outcome*/) {}

  // One call of the gRPC door ended; `code` is the canonical name, "OK" or
  // "INVALID_ARGUMENT".
  virtual void OnGrpcEnd(std::string_view /*service*/, std::string_view /*method*/,
                         std::string_view /*code*/, absl::Duration /*duration*/) {}
};

// Which names a scrape gets: the colon of the vLLM names is refused by promtool's linter.
enum class MetricNames { kNative, kVllm, kAll };

// Thread-safe.
class MetricsText {
 public:
  virtual ~MetricsText() = default;

  // Prometheus text format 0.0.4.
  virtual std::string Render(MetricNames names) = 0;
};

}  // namespace tessera::coordinator

#endif  // TESSERA_COORDINATOR_API_API_OBSERVER_H_
