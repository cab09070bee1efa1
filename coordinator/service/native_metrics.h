// NativeMetrics: Tessera's own series, tessera_* and grpc_server_*. Internal to Metrics.
// Label values are bounded: route patterns, methods, codes, configured tenants, never
// anything that a client wrote.
#ifndef TESSERA_COORDINATOR_SERVICE_NATIVE_METRICS_H_
#define TESSERA_COORDINATOR_SERVICE_NATIVE_METRICS_H_

#include <optional>
#include <string_view>
#include <vector>

#include "prometheus/counter.h"
#include "prometheus/family.h"
#include "prometheus/gauge.h"
#include "prometheus/histogram.h"
#include "prometheus/registry.h"

#include "coordinator/requests/engine_observer.h"
#include "coordinator/service/metrics.h"
#include "coordinator/service/tenant_metrics.h"
#include "coordinator/service/tier_metrics.h"

namespace tessera::coordinator {

// Thread-safe, except that OnStep comes from one thread at a time.
class NativeMetrics {
 public:
  explicit NativeMetrics(const MetricsOptions& options);

  void OnStep(const StepObservation& step);
  void OnToken(std::optional<absl::Duration> gap);
  void OnRequestFinished(const RequestObservation& request);
  void OnPreemptions(int64_t count);
  void OnGroupReady();
  void OnGroupFailed();

  void OnHttpStart();
  void OnHttpEnd(std::string_view route, std::string_view method, int code,
                 absl::Duration duration);
  void OnStreams(int change);
  void OnClientDisconnect();
  void OnRejected(RejectReason reason);
  void OnIdempotencyKey(IdempotencyOutcome outcome);
  void OnGrpcEnd(std::string_view service, std::string_view method, std::string_view code,
                 absl::Duration duration);

  std::vector<prometheus::MetricFamily> Collect() const { return registry_.Collect(); }

 private:
  prometheus::Family<prometheus::Counter>& Counters(const char* name, const char* help);
  prometheus::Family<prometheus::Gauge>& Gauges(const char* name, const char* help);
  prometheus::Family<prometheus::Histogram>& Histograms(const char* name,
                                                        const char* help);
  void InitialiseLabels(const MetricsOptions& options);
  void OnRankCounters(const StepObservation& step);

  prometheus::Registry registry_;
  uint64_t query_tokens_seen_ = 0;
  uint64_t hit_tokens_seen_ = 0;
  uint64_t shortened_tokens_seen_ = 0;

  prometheus::Family<prometheus::Counter>& http_requests_;
  prometheus::Family<prometheus::Histogram>& http_duration_;
  prometheus::Gauge& http_in_flight_;
  prometheus::Gauge& http_streams_;
  prometheus::Counter& http_disconnects_;
  prometheus::Family<prometheus::Counter>& http_rejected_;
  prometheus::Family<prometheus::Counter>& idempotency_keys_;
  prometheus::Family<prometheus::Counter>& grpc_handled_;
  prometheus::Family<prometheus::Histogram>& grpc_handling_;

  prometheus::Gauge& ready_;
  prometheus::Gauge& ready_workers_;
  prometheus::Counter& group_failures_;
  prometheus::Gauge& queue_size_;
  prometheus::Gauge& queue_tokens_;
  prometheus::Gauge& running_;
  prometheus::Gauge& saturation_;
  prometheus::Family<prometheus::Gauge>& kv_blocks_;
  prometheus::Family<prometheus::Gauge>& tail_blocks_;
  prometheus::Counter& prefix_queries_;
  prometheus::Counter& prefix_hits_;
  prometheus::Counter& prefix_shortened_;
  prometheus::Counter& preemptions_;
  prometheus::Counter& prompt_tokens_;
  prometheus::Counter& generation_tokens_;
  prometheus::Family<prometheus::Counter>& requests_;
  prometheus::Histogram& queue_wait_;
  prometheus::Histogram& first_token_;
  prometheus::Histogram& inter_token_;
  prometheus::Histogram& request_time_;
  prometheus::Histogram& scheduler_time_;
  prometheus::Histogram& batch_tokens_;
  prometheus::Histogram& batch_sequences_;
  prometheus::Family<prometheus::Histogram>& step_time_;
  prometheus::Family<prometheus::Counter>& rank_steps_;
  prometheus::Histogram& collective_time_;
  prometheus::Counter& collective_bytes_;
  prometheus::Counter& drafts_;
  prometheus::Counter& draft_tokens_;
  std::vector<prometheus::Counter*> accepted_at_;  // by position of the draft
  TenantMetrics tenants_;
  TierMetrics tiers_;
  prometheus::Gauge& imbalance_;
  prometheus::Counter& engram_rows_;
  prometheus::Counter& engram_late_waits_;
  prometheus::Counter& engram_cache_hits_;
  prometheus::Counter& engram_cache_misses_;
  prometheus::Counter& engram_disk_bytes_;
  prometheus::Histogram& engram_wait_;
};

}  // namespace tessera::coordinator

#endif  // TESSERA_COORDINATOR_SERVICE_NATIVE_METRICS_H_
