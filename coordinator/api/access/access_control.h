// AccessControl: the AccessConfig in force. A new one takes its place while requests run:
// what was let in goes on, what comes after is judged anew.
#ifndef TESSERA_COORDINATOR_API_ACCESS_ACCESS_CONTROL_H_
#define TESSERA_COORDINATOR_API_ACCESS_ACCESS_CONTROL_H_

#include <memory>
#include <optional>
#include <string_view>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"

#include "common/clock.h"
#include "common/mutex.h"
#include "coordinator/api/access/access_config.h"
#include "coordinator/api/access/api_keys.h"
#include "coordinator/api/access/rate_limiter.h"

namespace tessera::coordinator {

// Thread-safe.
class AccessControl {
 public:
  // Errors as ApiKeys::Create. `clock` must outlive it.
  static absl::StatusOr<std::unique_ptr<AccessControl>> Create(const AccessConfig& config,
                                                               Clock* clock);

  // Takes `config` in place of the old one; on an error the old one stays. Errors as
  // Create, and kFailedPrecondition where a server with keys would be left without any.
  absl::Status Replace(const AccessConfig& config);

  // No keys are configured, so nobody is refused.
  bool open() const;

  // What tenants have used of the grants in force.
  RateLimiter& rates() { return rates_; }

  // Whose request it is that presents `key`; nothing: nobody's.
  std::optional<KeyInfo> Authenticate(std::string_view key) const;

 private:
  explicit AccessControl(Clock* clock) : clock_(clock), rates_(clock) {}

  std::shared_ptr<const ApiKeys> keys() const;

  Clock* const clock_;
  RateLimiter rates_;
  mutable Mutex mutex_;
  std::shared_ptr<const ApiKeys> keys_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace tessera::coordinator

#endif  // TESSERA_COORDINATOR_API_ACCESS_ACCESS_CONTROL_H_
