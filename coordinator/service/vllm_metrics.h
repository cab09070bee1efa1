// VllmMetrics: the engine's events under the names, labels and buckets that vLLM's
// dashboards, routers and autoscalers query. Internal to Metrics. The engine label is
// "0": one scheduler speaks for the cell.
#ifndef TESSERA_COORDINATOR_SERVICE_VLLM_METRICS_H_
#define TESSERA_COORDINATOR_SERVICE_VLLM_METRICS_H_

#include <optional>
#include <vector>

#include "prometheus/counter.h"
#include "prometheus/gauge.h"
#include "prometheus/histogram.h"
#include "prometheus/registry.h"

#include "coordinator/requests/engine_observer.h"
#include "coordinator/service/metrics.h"

namespace tessera::coordinator {

// Thread-safe, except that OnStep comes from one thread at a time.
class VllmMetrics {
 public:
  explicit VllmMetrics(const MetricsOptions& options);

  void OnStep(const StepObservation& step);
  void OnToken(std::optional<absl::Duration> gap);
  void OnRequestFinished(const RequestObservation& request);
  void OnPreemptions(int64_t count);

  std::vector<prometheus::MetricFamily> Collect() const { return registry_.Collect(); }

 private:
  prometheus::Gauge& Gauge(const char* name, const char* help,
                           const prometheus::Labels& more = {});
  prometheus::Counter& Counter(const char* name, const char* help,
                               const prometheus::Labels& more = {});
  prometheus::Histogram& Histogram(const char* name, const char* help,
                                   const std::vector<double>& buckets);
  prometheus::Counter& Outcome(const char* reason);
  prometheus::Counter& Source(const char* source);

  prometheus::Registry registry_;
  const prometheus::Labels labels_;
  const std::vector<double> token_buckets_;
  uint64_t query_tokens_seen_ = 0;
  uint64_t hit_tokens_seen_ = 0;

  prometheus::Gauge& running_;
  prometheus::Gauge& waiting_;
  prometheus::Gauge& waiting_capacity_;
  prometheus::Gauge& waiting_deferred_;
  prometheus::Gauge& kv_usage_;
  prometheus::Counter& prompt_tokens_;
  prometheus::Counter& generation_tokens_;
  prometheus::Counter& cached_tokens_;
  prometheus::Counter& source_compute_;
  prometheus::Counter& source_cache_;
  prometheus::Counter& source_transfer_;
  prometheus::Counter& prefix_queries_;
  prometheus::Counter& prefix_hits_;
  prometheus::Counter& preemptions_;
  prometheus::Counter& corrupted_;
  prometheus::Counter& stop_;
  prometheus::Counter& length_;
  prometheus::Counter& abort_;
  prometheus::Counter& error_;
  prometheus::Histogram& first_token_;
  prometheus::Histogram& inter_token_;
  prometheus::Histogram& per_output_token_;
  prometheus::Histogram& per_output_token_alias_;
  prometheus::Histogram& total_time_;
  prometheus::Histogram& queue_time_;
  prometheus::Histogram& inference_time_;
  prometheus::Histogram& prefill_time_;
  prometheus::Histogram& decode_time_;
  prometheus::Histogram& request_prompt_tokens_;
  prometheus::Histogram& request_generation_tokens_;
  prometheus::Histogram& request_max_generation_tokens_;
  prometheus::Histogram& request_max_tokens_;
  prometheus::Histogram& request_computed_tokens_;
  prometheus::Histogram& request_n_;
  prometheus::Histogram& iteration_tokens_;
  prometheus::Counter& drafts_;
  prometheus::Counter& draft_tokens_;
  prometheus::Counter& accepted_drafts_;
  std::vector<prometheus::Counter*> accepted_at_;  // by position of the draft
};

}  // namespace tessera::coordinator

#endif  // TESSERA_COORDINATOR_SERVICE_VLLM_METRICS_H_
