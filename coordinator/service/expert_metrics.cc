#include "coordinator/service/expert_metrics.h"

#include <optional>
#include <string>

#include "prometheus/client_metric.h"

namespace tessera::coordinator {

prometheus::MetricFamily CollectExperts(ExpertLoads* loads) {
  prometheus::MetricFamily family;
  family.name = "tessera_expert_layer_imbalance_ratio";
  family.help = "Busiest over mean expert of a layer, in the last minute.";
  family.type = prometheus::MetricType::Gauge;
  const ExpertShape& shape = loads->shape();
  const ExpertLoadCounts counts = loads->Read();
  for (int64_t layer = 0; layer < shape.num_layers; ++layer) {
    const std::optional<double> ratio = ImbalanceOf(counts.recent_of(shape, layer));
    if (!ratio.has_value()) {
      continue;
    }
    prometheus::ClientMetric metric;
    metric.label = {{"layer", std::to_string(shape.first_layer + layer)}};
    metric.gauge.value = *ratio;
    family.metric.push_back(metric);
  }
  return family;
}

}  // namespace tessera::coordinator
