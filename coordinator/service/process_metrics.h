// process_*: what /proc says about this process, in the names that every Prometheus
// client uses.
#ifndef TESSERA_COORDINATOR_SERVICE_PROCESS_METRICS_H_
#define TESSERA_COORDINATOR_SERVICE_PROCESS_METRICS_H_

#include <vector>

#include "prometheus/metric_family.h"

namespace tessera::coordinator {

// CPU time, memory, threads, file descriptors and start time. A figure that can't be read
// is left out.
std::vector<prometheus::MetricFamily> CollectProcess();

}  // namespace tessera::coordinator

#endif  // TESSERA_COORDINATOR_SERVICE_PROCESS_METRICS_H_
