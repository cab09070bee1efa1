#include "coordinator/service/metrics.h"

#include <iterator>
#include <utility>
#include <vector>

#include "prometheus/text_serializer.h"

#include "coordinator/service/expert_metrics.h"
#include "coordinator/service/native_metrics.h"
#include "coordinator/service/process_metrics.h"
#include "coordinator/service/vllm_metrics.h"

namespace tessera::coordinator {

struct Metrics::Series {
  explicit Series(const MetricsOptions& options)
      : native(options), vllm(options), expert_loads(options.expert_loads) {}

  NativeMetrics native;
  VllmMetrics vllm;
  ExpertLoads* const expert_loads;
};

Metrics::Metrics(const MetricsOptions& options)
    : series_(std::make_unique<Series>(options)) {}

Metrics::~Metrics() = default;

void Metrics::OnStep(const StepObservation& step) {
  series_->native.OnStep(step);
  series_->vllm.OnStep(step);
}

void Metrics::OnToken(std::optional<absl::Duration> gap) {
  series_->native.OnToken(gap);
  series_->vllm.OnToken(gap);
}

void Metrics::OnRequestFinished(const RequestObservation& request) {
  series_->native.OnRequestFinished(request);
  series_->vllm.OnRequestFinished(request);
}

void Metrics::OnPreemptions(int64_t count) {
  series_->native.OnPreemptions(count);
  series_->vllm.OnPreemptions(count);
}

// The doors count refusals by the reason that the client was given.
void Metrics::OnRejected(const absl::Status& /*reason*/) {}

void Metrics::OnGroupReady(uint64_t /*epoch*/) { series_->native.OnGroupReady(); }

void Metrics::OnGroupFailed(uint64_t /*epoch*/, const absl::Status& /*reason*/) {
  series_->native.OnGroupFailed();
}

void Metrics::OnHttpStart() { series_->native.OnHttpStart(); }

void Metrics::OnHttpEnd(std::string_view route, std::string_view method, int code,
                        absl::Duration duration) {
  series_->native.OnHttpEnd(route, method, code, duration);
}

void Metrics::OnStreamOpen() { series_->native.OnStreams(1); }
void Metrics::OnStreamClose() { series_->native.OnStreams(-1); }
void Metrics::OnClientDisconnect() { series_->native.OnClientDisconnect(); }
void Metrics::OnRejected(RejectReason reason) { series_->native.OnRejected(reason); }
void Metrics::OnIdempotencyKey(IdempotencyOutcome outcome) {
  series_->native.OnIdempotencyKey(outcome);
}

void Metrics::OnGrpcEnd(std::string_view service, std::string_view method,
                        std::string_view code, absl::Duration duration) {
  series_->native.OnGrpcEnd(service, method, code, duration);
}

std::string Metrics::Render(MetricNames names) {
  std::vector<prometheus::MetricFamily> families;
  const auto append = [&families](std::vector<prometheus::MetricFamily> more) {
    families.insert(families.end(), std::make_move_iterator(more.begin()),
                    std::make_move_iterator(more.end()));
  };
  if (names != MetricNames::kVllm) {
    append(series_->native.Collect());
    append(CollectProcess());
    if (series_->expert_loads != nullptr) {
      append({CollectExperts(series_->expert_loads)});
    }
  }
  if (names != MetricNames::kNative) {
    append(series_->vllm.Collect());
  }
  return prometheus::TextSerializer().Serialize(families);
}

}  // namespace tessera::coordinator
