// ApiService: the HTTP API without HTTP. It matches routes, checks keys and origins,
// gives every answer its x-request-id, and hands requests to the dialects. http_server
// brings it requests from sockets; a test calls it directly.
#ifndef TESSERA_COORDINATOR_API_API_SERVICE_H_
#define TESSERA_COORDINATOR_API_API_SERVICE_H_

#include <atomic>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"

#include "coordinator/api/access/access_control.h"
#include "coordinator/api/access/limited_engine.h"
#include "coordinator/api/admin/admin_door.h"
#include "coordinator/api/api_context.h"
#include "coordinator/api/errors.h"
#include "coordinator/api/http_message.h"
#include "coordinator/api/idempotency/idempotency_door.h"

namespace tessera::coordinator {

// What the API stands on. None is owned; all must outlive the service and the engine's
// last event. `observer` may be null; without `metrics` the route /metrics does not
// exist, without `admin` neither /admin nor the console, without `grammars` no structured
// output.
struct ApiServiceParts {
  const model::Tokenizer* tokenizer = nullptr;
  const model::ChatEncoding* chat = nullptr;
  Engine* engine = nullptr;
  Clock* clock = nullptr;
  ApiObserver* observer = nullptr;
  MetricsText* metrics = nullptr;
  AdminDoor* admin = nullptr;
  GrammarPool* grammars = nullptr;
};

// Thread-safe.
class ApiService {
 public:
  // kInvalidArgument: no model name, a bad API key, limits without a context length.
  // kInternal: OpenSSL has no random bytes.
  static absl::StatusOr<std::unique_ptr<ApiService>> Create(
      const ApiServiceOptions& options, const ApiServiceParts& parts);
  ApiService(const ApiService&) = delete;
  ApiService& operator=(const ApiService&) = delete;
  ~ApiService();

  // Answers through `writer`. Tokenises on the calling thread (milliseconds to a second),
  // never waits for the engine.
  void Handle(HttpRequest request, std::shared_ptr<ResponseWriter> writer);

  // What the API answers, in the words of its OpenAPI document.
  struct RouteName {
    std::string_view pattern;  // "/v1/models/{id}"
    std::string_view method;   // "GET"
  };
  static std::vector<RouteName> Routes();

  // True for requests that Handle answers within microseconds, so that a thread which
  // serves sockets may call it: probes, scrapes, CORS preflights.
  static bool IsQuick(const HttpRequest& request);

  // The answer to a request that the transport refused before it was whole (413, 431,
  // 408, 400), with CORS headers and x-request-id, counted as route "unknown".
  HttpResponse TransportError(const ApiError& error, const HttpHeaders& headers);

  // From now on /v1 requests are refused with 503 shutting_down, whatever the engine
  // says.
  void SetDraining();

  const ApiContext& context() const { return context_; }
  // The keys and grants in force, which may be replaced while requests run.
  AccessControl* access() const { return access_.get(); }

 private:
  struct Route;

  ApiService(const ApiServiceOptions& options, const ApiServiceParts& parts,
             std::unique_ptr<AccessControl> access, uint64_t seed);

  static std::span<const Route> RouteTable();
  static const Route* FindRoute(std::string_view path);
  // Whether errors and models are to look as Anthropic's: on its own routes, and where
  // its client's header is on paths that are no dialect's own. `route` may be null.
  static bool SpeaksAnthropic(const Route* route, const HttpHeaders& headers);
  // Routes that generate, those that answer at once, and the ones of Anthropic's.
  void Generate(const Route& route, const HttpRequest& request,
                const RefusalText& refusal, std::shared_ptr<ResponseWriter> writer);
  HttpResponse Answer(const Route& route, std::string_view path,
                      const HttpRequest& request) const;
  HttpResponse AnswerAnthropic(const Route& route, std::string_view path,
                               const HttpRequest& request) const;
  // `route`: null for a path that only the official services have.
  bool NeedsKey(const Route* route) const;
  std::optional<KeyInfo> KeyOf(const HttpRequest& request) const;
  HttpHeaders CommonHeaders(const HttpHeaders& request_headers, bool anthropic);

  ApiContext context_;
  std::unique_ptr<AccessControl> access_;
  LimitedEngine limited_;                                // what every door submits to
  const std::shared_ptr<IdempotencyStore> idempotency_;  // shared with running requests
  AdminDoor* const admin_;
  RequestIds ids_;
  const std::string openapi_;  // the document
  ApiObserver silent_observer_;
  std::atomic<bool> draining_{false};
};

}  // namespace tessera::coordinator

#endif  // TESSERA_COORDINATOR_API_API_SERVICE_H_
