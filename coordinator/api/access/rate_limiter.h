// RateLimiter: what each tenant has used of its grant: requests and tokens per minute as
// token buckets, and requests under way. Doors ask it before they work on a request and
// tell it what the work came to. It knows neither keys nor HTTP.
//
// A bucket holds one minute's grant and refills evenly. A prompt is charged before the
// engine sees it; the completion, whose length nobody knows before, when it ends, which
// may leave a bucket in debt: the tenant waits until it is paid. So over any time a
// tenant gets its rate, plus one minute's grant, plus what was under way.
#ifndef TESSERA_COORDINATOR_API_ACCESS_RATE_LIMITER_H_
#define TESSERA_COORDINATOR_API_ACCESS_RATE_LIMITER_H_

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/time/time.h"

#include "common/clock.h"
#include "common/mutex.h"
#include "coordinator/requests/tenant_policy.h"

namespace tessera::coordinator {

// What a tenant ran into.
enum class RateLimit { kRequests, kTokens, kConcurrency };

struct RateRefusal {
  RateLimit limit = RateLimit::kRequests;
  int64_t granted = 0;
  // Until the same request would be let in; infinite: never, it is larger than the grant.
  absl::Duration retry_after;
};

// One bucket, as the x-ratelimit headers tell it. `limit` 0: there is none.
struct BucketState {
  int64_t limit = 0;
  int64_t remaining = 0;  // never negative, in debt or not
  absl::Duration reset;   // until the bucket is full
};

struct RateState {
  BucketState requests;
  BucketState tokens;
};

// Thread-safe; no method blocks for longer than a look into a map.
class RateLimiter {
 public:
  // No limits until SetPolicies. `clock` must outlive it.
  explicit RateLimiter(Clock* clock) : clock_(clock) {}

  // The grants in force from now on; `others` is that of tenants without one. What a
  // tenant has used stays used. Tenants that are gone are forgotten.
  void SetPolicies(const std::vector<TenantPolicy>& policies, const TenantPolicy& others);

  // A request of `tenant` came: nothing if it may go on, and then EndRequest must follow.
  std::optional<RateRefusal> BeginRequest(const std::string& tenant);
  void EndRequest(const std::string& tenant);

  // The tokens of its prompts: nothing if they were charged. A refusal charges nothing.
  std::optional<RateRefusal> ChargePrompt(const std::string& tenant, int64_t tokens);
  // The tokens that were generated; may leave a debt.
  void ChargeCompletion(const std::string& tenant, int64_t tokens);

  RateState state(const std::string& tenant) const;

 private:
  // The level may be negative. A bucket without a limit is never looked at.
  struct Bucket {
    double level = 0;
    absl::Time updated;
  };
  struct Account {
    TenantPolicy policy;
    Bucket requests;
    Bucket tokens;
    int64_t under_way = 0;
  };

  Account& AccountOf(const std::string& tenant, absl::Time now)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  Clock* const clock_;
  mutable Mutex mutex_;
  std::map<std::string, TenantPolicy> policies_ ABSL_GUARDED_BY(mutex_);
  TenantPolicy others_ ABSL_GUARDED_BY(mutex_);
  // At most one per tenant that has a key.
  std::map<std::string, Account> accounts_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace tessera::coordinator

#endif  // TESSERA_COORDINATOR_API_ACCESS_RATE_LIMITER_H_
