// TierMetrics: the series of the prefix cache's tiers: hits by tier, blocks of host and
// disk, copies, and what ranks hand to each other through it. Part of NativeMetrics. No
// series tells tenants apart.
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
  void AddDisk(prometheus::Registry* registry);

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
  Total disk_hits_;
  prometheus::Gauge* disk_cached_ = nullptr;
  prometheus::Gauge* disk_free_ = nullptr;
  Total spilled_;
  Total fetched_;
  Total failed_disk_copies_;
  Total disk_waits_;
  Total given_up_disk_waits_;
  prometheus::Counter* disk_written_bytes_ = nullptr;
  prometheus::Counter* disk_read_bytes_ = nullptr;
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
