#include "coordinator/api/access/access_control.h"

#include <utility>

#include "common/status_macros.h"

namespace tessera::coordinator {

absl::StatusOr<std::unique_ptr<AccessControl>> AccessControl::Create(
    const AccessConfig& config, Clock* clock) {
  TESSERA_ASSIGN_OR_RETURN(ApiKeys keys, ApiKeys::Create(config.keys));
  std::unique_ptr<AccessControl> control(new AccessControl(clock));
  control->rates_.SetPolicies(config.tenants, config.others);
  MutexLock lock(&control->mutex_);
  control->keys_ = std::make_shared<const ApiKeys>(std::move(keys));
  return control;
}

absl::Status AccessControl::Replace(const AccessConfig& config) {
  TESSERA_ASSIGN_OR_RETURN(ApiKeys keys, ApiKeys::Create(config.keys));
  if (keys.empty() && !open()) {
    return absl::FailedPreconditionError(
        "no keys are left, and a server does not open itself to everybody");
  }
  rates_.SetPolicies(config.tenants, config.others);
  MutexLock lock(&mutex_);
  keys_ = std::make_shared<const ApiKeys>(std::move(keys));
  return absl::OkStatus();
}

bool AccessControl::open() const { return keys()->empty(); }

std::optional<KeyInfo> AccessControl::Authenticate(std::string_view key) const {
  return keys()->Find(key, clock_->Now());
}

std::shared_ptr<const ApiKeys> AccessControl::keys() const {
  MutexLock lock(&mutex_);
  return keys_;
}

}  // namespace tessera::coordinator
