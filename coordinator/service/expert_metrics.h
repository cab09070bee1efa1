// The series of routed experts: one per MoE layer, never one per expert. Internal to
// Metrics.
#ifndef TESSERA_COORDINATOR_SERVICE_EXPERT_METRICS_H_
#define TESSERA_COORDINATOR_SERVICE_EXPERT_METRICS_H_

#include "prometheus/metric_family.h"

#include "coordinator/console/expert_loads.h"

namespace tessera::coordinator {

// tessera_expert_layer_imbalance_ratio{layer="3"}: the busiest expert over the layer's
// mean, of the last minute; absent for layers to which nothing was routed then.
prometheus::MetricFamily CollectExperts(ExpertLoads* loads);

}  // namespace tessera::coordinator

#endif  // TESSERA_COORDINATOR_SERVICE_EXPERT_METRICS_H_
