#include "coordinator/api/health.h"

#include <utility>

#include "nlohmann/json.hpp"

#include "coordinator/api/errors.h"
#include "coordinator/api/json_fields.h"

namespace tessera::coordinator {
namespace {

using nlohmann::json;

HttpResponse Json(const json& body, int status = 200) {
  HttpResponse response;
  response.status = status;
  response.body = DumpJson(body);
  response.headers.emplace_back("Cache-Control", "no-store");
  return response;
}

HttpResponse StateResponse(const EngineStatus& status, bool ok) {
  HttpResponse response = Json({{"status", ok ? "ready" : "unavailable"},
                                {"phase", status.phase},
                                {"ready", status.ready},
                                {"draining", status.draining}},
                               ok ? 200 : 503);
  if (!ok) {
    response.headers.emplace_back("Retry-After", "1");
  }
  return response;
}

}  // namespace

HttpResponse LivezResponse() { return Json({{"status", "alive"}}); }

HttpResponse ReadyzResponse(const ApiContext& context) {
  const EngineStatus status = context.engine->status();
  return StateResponse(status, status.ready && !status.draining);
}

HttpResponse HealthResponse(const ApiContext& context) {
  const EngineStatus status = context.engine->status();
  return StateResponse(status, status.ready || status.draining);
}

HttpResponse VersionResponse(const ApiContext& context) {
  return Json({{"version", context.options.version},
               {"revision", context.options.revision},
               {"system_fingerprint", context.options.system_fingerprint}});
}

HttpResponse LoadResponse(const ApiContext& context) {
  const EngineStatus status = context.engine->status();
  return Json({{"running", status.num_running},
               {"waiting", status.num_waiting},
               {"kv_blocks_total", status.kv_blocks_total},
               {"kv_blocks_used", status.kv_blocks_used}});
}

HttpResponse MetricsResponse(const ApiContext& context, std::string_view query) {
  MetricNames names = context.options.metric_names;
  if (query == "names=native") {
    names = MetricNames::kNative;
  } else if (query == "names=vllm") {
    names = MetricNames::kVllm;
  } else if (query == "names=all") {
    names = MetricNames::kAll;
  } else if (!query.empty()) {
    return ErrorResponse(BadRequestError("names", "names must be native, vllm or all"));
  }
  HttpResponse response;
  response.content_type = "text/plain; version=0.0.4; charset=utf-8";
  response.body = context.metrics->Render(names);
  return response;
}

}  // namespace tessera::coordinator
