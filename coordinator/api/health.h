// The routes of probes and scrapers: /livez, /readyz (/ready), /health (/ping), /version,
// /load and /metrics. All are GET, none reads a body, none waits for anything.
#ifndef TESSERA_COORDINATOR_API_HEALTH_H_
#define TESSERA_COORDINATOR_API_HEALTH_H_

#include <string_view>

#include "coordinator/api/api_context.h"
#include "coordinator/api/http_message.h"

namespace tessera::coordinator {

// 200 while the process answers at all.
HttpResponse LivezResponse();

// 200 when the engine is ready and not draining, else 503 with Retry-After; the body
// names the phase.
HttpResponse ReadyzResponse(const ApiContext& context);

// As /readyz, but stays 200 while draining, so that a liveness probe of old manifests
// does not restart a pod that drains.
HttpResponse HealthResponse(const ApiContext& context);

HttpResponse VersionResponse(const ApiContext& context);

// Running and waiting sequences and KV blocks.
HttpResponse LoadResponse(const ApiContext& context);

// Prometheus text. `query`: "names=native|vllm|all", anything else is 400; empty is the
// default set.
HttpResponse MetricsResponse(const ApiContext& context, std::string_view query);

}  // namespace tessera::coordinator

#endif  // TESSERA_COORDINATOR_API_HEALTH_H_
