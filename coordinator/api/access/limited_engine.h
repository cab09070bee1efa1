// LimitedEngine: an Engine that keeps tenants to their grants before it passes requests
// on, so that every door does. It charges a prompt when it is submitted and what was
// generated when the request ends, however it ends.
#ifndef TESSERA_COORDINATOR_API_ACCESS_LIMITED_ENGINE_H_
#define TESSERA_COORDINATOR_API_ACCESS_LIMITED_ENGINE_H_

#include <memory>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/time/time.h"

#include "coordinator/api/access/rate_limiter.h"
#include "coordinator/requests/engine.h"

namespace tessera::coordinator {

// A refusal as a status, kResourceExhausted with a message for the client, and back:
// nothing for a status that is none.
absl::Status ToStatus(const RateRefusal& refusal);
std::optional<RateRefusal> RateRefusalOf(const absl::Status& status);

// Thread-safe, as every Engine.
class LimitedEngine final : public Engine {
 public:
  // Both must outlive it; `rates` the sinks as well, that is the engine's last event.
  LimitedEngine(Engine* engine, RateLimiter* rates) : engine_(engine), rates_(rates) {}

  // As Engine says, and kResourceExhausted with a RateRefusal.
  absl::Status Submit(ValidatedRequest request,
                      std::shared_ptr<RequestSink> sink) override;
  void Cancel(const std::string& request_id) override { engine_->Cancel(request_id); }
  EngineStatus status() const override { return engine_->status(); }
  absl::Duration retry_after() const override { return engine_->retry_after(); }

 private:
  Engine* const engine_;
  RateLimiter* const rates_;
};

}  // namespace tessera::coordinator

#endif  // TESSERA_COORDINATOR_API_ACCESS_LIMITED_ENGINE_H_
