#include "coordinator/api/access/rate_limiter.h"

#include <algorithm>
#include <cmath>

namespace tessera::coordinator {
namespace {

constexpr absl::Duration kMinute = absl::Minutes(1);

bool Limits(const TenantPolicy& policy) {
  return policy.requests_per_minute > 0 || policy.tokens_per_minute > 0 ||
         policy.max_concurrent_requests > 0;
}

// How long `amount` takes to flow in at `per_minute`.
absl::Duration TimeFor(double amount, int64_t per_minute) {
  return kMinute * (amount / static_cast<double>(per_minute));
}

template <typename Bucket>
void Refill(int64_t per_minute, absl::Time now, Bucket* bucket) {
  const double capacity = static_cast<double>(per_minute);
  const double minutes =
      std::max(0.0, absl::FDivDuration(now - bucket->updated, kMinute));
  bucket->level = std::min(capacity, bucket->level + minutes * capacity);
  bucket->updated = now;
}

template <typename Bucket>
BucketState StateOf(int64_t per_minute, const Bucket& bucket) {
  BucketState state;
  if (per_minute > 0) {
    state.limit = per_minute;
    state.remaining =
        std::max<int64_t>(0, static_cast<int64_t>(std::floor(bucket.level)));
    state.reset = TimeFor(static_cast<double>(per_minute) - bucket.level, per_minute);
  }
  return state;
}

}  // namespace

void RateLimiter::SetPolicies(const std::vector<TenantPolicy>& policies,
                              const TenantPolicy& others) {
  const absl::Time now = clock_->Now();
  MutexLock lock(&mutex_);
  policies_.clear();
  for (const TenantPolicy& policy : policies) {
    policies_[policy.name] = policy;
  }
  others_ = others;
  std::erase_if(accounts_, [&](const auto& entry) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    return entry.second.under_way == 0 && !policies_.contains(entry.first) &&
           !Limits(others_);
  });
  for (auto& [tenant, account] : accounts_) {
    const auto found = policies_.find(tenant);
    const TenantPolicy& next = found == policies_.end() ? others_ : found->second;
    // What was used of the old grant is used of the new one.
    const auto carry = [now](int64_t before, int64_t after, Bucket* bucket) {
      Refill(before, now, bucket);
      bucket->level += static_cast<double>(after - before);
    };
    carry(account.policy.requests_per_minute, next.requests_per_minute,
          &account.requests);
    carry(account.policy.tokens_per_minute, next.tokens_per_minute, &account.tokens);
    account.policy = next;
  }
}

RateLimiter::Account& RateLimiter::AccountOf(const std::string& tenant, absl::Time now) {
  const auto [found, fresh] = accounts_.try_emplace(tenant);
  Account& account = found->second;
  if (fresh) {
    const auto policy = policies_.find(tenant);
    account.policy = policy == policies_.end() ? others_ : policy->second;
    account.requests.level = static_cast<double>(account.policy.requests_per_minute);
    account.tokens.level = static_cast<double>(account.policy.tokens_per_minute);
    account.requests.updated = account.tokens.updated = now;
  }
  Refill(account.policy.requests_per_minute, now, &account.requests);
  Refill(account.policy.tokens_per_minute, now, &account.tokens);
  return account;
}

std::optional<RateRefusal> RateLimiter::BeginRequest(const std::string& tenant) {
  const absl::Time now = clock_->Now();
  MutexLock lock(&mutex_);
  Account& account = AccountOf(tenant, now);
  const TenantPolicy& policy = account.policy;
  if (policy.max_concurrent_requests > 0 &&
      account.under_way >= policy.max_concurrent_requests) {
    return RateRefusal{RateLimit::kConcurrency, policy.max_concurrent_requests,
                       absl::Seconds(1)};
  }
  if (policy.requests_per_minute > 0) {
    if (account.requests.level < 1) {
      return RateRefusal{RateLimit::kRequests, policy.requests_per_minute,
                         TimeFor(1 - account.requests.level, policy.requests_per_minute)};
    }
    account.requests.level -= 1;
  }
  ++account.under_way;
  return std::nullopt;
}

void RateLimiter::EndRequest(const std::string& tenant) {
  MutexLock lock(&mutex_);
  const auto found = accounts_.find(tenant);
  if (found != accounts_.end() && found->second.under_way > 0) {
    --found->second.under_way;
  }
}

std::optional<RateRefusal> RateLimiter::ChargePrompt(const std::string& tenant,
                                                     int64_t tokens) {
  const absl::Time now = clock_->Now();
  MutexLock lock(&mutex_);
  Account& account = AccountOf(tenant, now);
  const int64_t granted = account.policy.tokens_per_minute;
  if (granted == 0) {
    return std::nullopt;
  }
  if (tokens > granted) {
    return RateRefusal{RateLimit::kTokens, granted, absl::InfiniteDuration()};
  }
  const double wanted = static_cast<double>(tokens);
  if (account.tokens.level < wanted) {
    return RateRefusal{RateLimit::kTokens, granted,
                       TimeFor(wanted - account.tokens.level, granted)};
  }
  account.tokens.level -= wanted;
  return std::nullopt;
}

void RateLimiter::ChargeCompletion(const std::string& tenant, int64_t tokens) {
  const absl::Time now = clock_->Now();
  MutexLock lock(&mutex_);
  Account& account = AccountOf(tenant, now);
  if (account.policy.tokens_per_minute > 0) {
    account.tokens.level -= static_cast<double>(tokens);
  }
}

RateState RateLimiter::state(const std::string& tenant) const {
  RateState state;
  const absl::Time now = clock_->Now();
  MutexLock lock(&mutex_);
  const auto found = accounts_.find(tenant);
  if (found == accounts_.end()) {
    return state;
  }
  Account account = found->second;
  Refill(account.policy.requests_per_minute, now, &account.requests);
  Refill(account.policy.tokens_per_minute, now, &account.tokens);
  state.requests = StateOf(account.policy.requests_per_minute, account.requests);
  state.tokens = StateOf(account.policy.tokens_per_minute, account.tokens);
  return state;
}

}  // namespace tessera::coordinator
