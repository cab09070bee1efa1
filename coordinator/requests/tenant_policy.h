// TenantPolicy: what an operator grants one tenant. Doors read the rates, the scheduler
// weight and quota, the block manager the floor. A plain value; files and flags fill it.
#ifndef TESSERA_COORDINATOR_REQUESTS_TENANT_POLICY_H_
#define TESSERA_COORDINATOR_REQUESTS_TENANT_POLICY_H_

#include <cstdint>
#include <limits>
#include <string>

namespace tessera::coordinator {

// Defaults grant everything: a tenant that nobody configured is limited by nobody.
struct TenantPolicy {
  std::string name;
  // Share of the scheduled tokens while other tenants wait, relative to their weights.
  // Positive and finite.
  double weight = 1.0;
  // The best (lowest) priority that its requests get, whatever they ask for: a better
  // priority goes before all fairness.
  int32_t best_priority = std::numeric_limits<int32_t>::min();
  // Tokens of running sequences, generated ones to come included, at most; 0: no quota.
  int64_t max_running_tokens = 0;
  // Prompt and completion tokens per minute; 0: no limit.
  int64_t tokens_per_minute = 0;
  int64_t requests_per_minute = 0;
  // Requests under way at once, waiting ones included; 0: no limit.
  int64_t max_concurrent_requests = 0;
  // Cached blocks per DP rank that other tenants may not evict.
  int64_t min_cached_blocks = 0;
};

}  // namespace tessera::coordinator

#endif  // TESSERA_COORDINATOR_REQUESTS_TENANT_POLICY_H_
