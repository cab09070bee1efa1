// TierMetrics: the series of the prefix cache's tiers: hits by tier, host blocks, copies,
// and what ranks hand to each other through it. Part of NativeMetrics. No series tells
// tenants apart.
#ifndef TESSERA_COORDINATOR_SERVICE_TIER_METRICS_H_
#define TESSERA_COORDINATOR_SERVICE_TIER_METRICS_H_

#include <cstdint>
#include <span>

#include "prometheus/counter.h"
#include "prometheus/gauge.h"
#include "prometheus/registry.h"

#include "coordinator/requests/engine_observer.h"

namespace tessera::coordinator {

// Thread-safe, except that OnStep comes from one thread at a time.
class TierMetrics {
 public:
  // Registers the series in `registry`, which must outlive it.
  explicit TierMetrics(prometheus::Registry* registry);

  void OnStep(const EngineGauges& gauges,
              std::span<const proto::StepCounters> rank_counters);

 private:
  // A total of the scheduler as a counter.
  struct Total {
    prometheus::Counter* counter = nullptr;
    uint64_t seen = 0;

    void Set(uint64_t now);
  };

  prometheus::Gauge* cached_ = nullptr;
  prometheus::Gauge* free_ = nullptr;
  Total device_hits_;
  Total host_hits_;
  Total offloaded_;
  Total restored_;
  Total handed_over_;
  Total given_up_;
  Total handed_over_tokens_;
  Total handed_over_blocks_;
  Total recomputed_tokens_;
  prometheus::Counter* transfer_bytes_ = nullptr;
};

}  // namespace tessera::coordinator

#endif  // TESSERA_COORDINATOR_SERVICE_TIER_METRICS_H_
