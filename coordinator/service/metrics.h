// Metrics: everything that /metrics of the coordinator shows. It hears the engine
// (EngineObserver) and the doors (ApiObserver), keeps two sets of series, Tessera's own
// names and the names that vLLM's users know, and renders either. It measures nothing
// itself, except the process (from /proc).
#ifndef TESSERA_COORDINATOR_SERVICE_METRICS_H_
#define TESSERA_COORDINATOR_SERVICE_METRICS_H_

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "coordinator/api/api_observer.h"
#include "coordinator/console/expert_loads.h"
#include "coordinator/requests/engine_observer.h"

namespace tessera::coordinator {

// Constant labels and bounds.
struct MetricsOptions {
  std::string model_name;
  int64_t max_model_len = 0;
  int64_t block_size = 16;
  int64_t num_blocks = 0;
  int64_t num_speculative_tokens = 0;
  std::string kv_cache_dtype = "auto";
  bool enable_prefix_caching = true;
  std::string version = "0";
  std::string revision;
  std::string isa;
  std::string cuda = "none";
  std::string numerics_mode = "exact";
  std::string numerics_id;
  // Configured tenants that have series of their own, in the order of
  // EngineGauges::tenants; a bounded number.
  std::vector<std::string> tenants;
  // Whose imbalance by layer is shown; may be null. Must outlive the metrics.
  ExpertLoads* expert_loads = nullptr;
};

// Thread-safe. Observing never blocks on rendering for longer than one series takes to
// read.
class Metrics final : public EngineObserver, public ApiObserver, public MetricsText {
 public:
  explicit Metrics(const MetricsOptions& options);
  Metrics(const Metrics&) = delete;
  Metrics& operator=(const Metrics&) = delete;
  ~Metrics() override;

  void OnStep(const StepObservation& step) override;
  void OnToken(std::optional<absl::Duration> gap) override;
  void OnRequestFinished(const RequestObservation& request) override;
  void OnPreemptions(int64_t count) override;
  void OnRejected(const absl::Status& reason) override;
  void OnGroupReady(uint64_t epoch) override;
  void OnGroupFailed(uint64_t epoch, const absl::Status& reason) override;

  void OnHttpStart() override;
  void OnHttpEnd(std::string_view route, std::string_view method, int code,
                 absl::Duration duration) override;
  void OnStreamOpen() override;
  void OnStreamClose() override;
  void OnClientDisconnect() override;
  void OnRejected(RejectReason reason) override;
  void OnIdempotencyKey(IdempotencyOutcome outcome) override;
  void OnGrpcEnd(std::string_view service, std::string_view method, std::string_view code,
                 absl::Duration duration) override;

  // Prometheus text 0.0.4. Native names include process_* and grpc_server_*.
  std::string Render(MetricNames names) override;

 private:
  struct Series;
  std::unique_ptr<Series> series_;
};

}  // namespace tessera::coordinator

#endif  // TESSERA_COORDINATOR_SERVICE_METRICS_H_
