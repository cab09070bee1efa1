// TenantMetrics: the series of configured tenants, tessera_tenant_*. Part of
// NativeMetrics. Tenants that nobody configured have none: their number is not bounded.
#ifndef TESSERA_COORDINATOR_SERVICE_TENANT_METRICS_H_
#define TESSERA_COORDINATOR_SERVICE_TENANT_METRICS_H_

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "prometheus/counter.h"
#include "prometheus/gauge.h"
#include "prometheus/registry.h"

#include "coordinator/requests/engine_observer.h"

namespace tessera::coordinator {

// Thread-safe, except that OnStep comes from one thread at a time.
class TenantMetrics {
 public:
  // Registers the series of `tenants` in `registry`, which must outlive it; none at all
  // without tenants.
  TenantMetrics(const std::vector<std::string>& tenants, prometheus::Registry* registry);

  // What each has, in the order of the constructor; more or fewer are ignored.
  void OnStep(std::span<const TenantGauges> gauges);

 private:
  struct Series {
    prometheus::Gauge* waiting;
    prometheus::Gauge* running;
    prometheus::Gauge* running_tokens;
    prometheus::Counter* scheduled_tokens;
    prometheus::Counter* preemptions;
    TenantGauges seen = {};
  };

  std::vector<Series> series_;
};

}  // namespace tessera::coordinator

#endif  // TESSERA_COORDINATOR_SERVICE_TENANT_METRICS_H_
