#include "coordinator/scheduler/scheduler_options_check.h"

#include <algorithm>
#include <cmath>
#include <iterator>
#include <set>
#include <string_view>
#include <vector>

#include "common/status.h"
#include "common/status_macros.h"
#include "coordinator/requests/tenant_policy.h"
#include "proto/step_plan.h"

namespace tessera::coordinator {
namespace {

absl::Status CheckSizes(const SchedulerOptions& options) {
  if (options.num_dp_ranks < 1 || options.max_num_seqs < 1 ||
      options.max_num_batched_tokens < 1 || options.max_waiting < 1) {
    return InvalidArgumentF(
        "{} dp ranks, {} sequences, {} batched tokens, {} waiting: expected at least one "
        "of each",
        options.num_dp_ranks, options.max_num_seqs, options.max_num_batched_tokens,
        options.max_waiting);
  }
  if (options.num_speculative_tokens < 0 ||
      options.num_speculative_tokens > static_cast<int64_t>(proto::kMaxDrafts)) {
    return InvalidArgumentF("{} speculative tokens, expected 0 to {}",
                            options.num_speculative_tokens, proto::kMaxDrafts);
  }
  if (options.prefill_cost_tokens < 0) {
    return InvalidArgumentF("prefill_cost_tokens {}, expected at least 0",
                            options.prefill_cost_tokens);
  }
  if (options.max_restores < 0) {
    return InvalidArgumentF("max_restores {}, expected at least 0", options.max_restores);
  }
  if (options.max_model_len < 2) {
    return InvalidArgumentF("max_model_len {}, expected at least 2",
                            options.max_model_len);
  }
  if (options.block_size < 1 ||
      options.num_blocks < (options.max_model_len - 1) / options.block_size + 1) {
    return InvalidArgumentF(
        "{} kv blocks of {} tokens, expected enough for one sequence of max_model_len {}",
        options.num_blocks, options.block_size, options.max_model_len);
  }
  return absl::OkStatus();
}

absl::Status CheckRoles(const SchedulerOptions& options) {
  const int64_t count = options.num_prefill_ranks;
  if (count < 0 || count >= options.num_dp_ranks) {
    return InvalidArgumentF(
        "{} prefill ranks of {} dp ranks, expected 0 to {}: at least one decodes", count,
        options.num_dp_ranks, options.num_dp_ranks - 1);
  }
  if (count == 0) {
    return absl::OkStatus();
  }
  if (!options.enable_prefix_caching || options.num_host_blocks < 1 ||
      (options.num_tail_blocks > 0 && options.num_host_tail_blocks < 1)) {
    return InvalidArgumentF(
        "prefill ranks with {} host blocks and {} host tail blocks, prefix caching: {}; "
        "what they compute comes as a cached prefix into host blocks",
        options.num_host_blocks, options.num_host_tail_blocks,
        options.enable_prefix_caching);
  }
  if (options.max_transfers < 1 || options.prefill_min_tokens <= options.block_size) {
    return InvalidArgumentF(
        "prefill ranks with max_transfers {} and prefill_min_tokens {}, expected at "
        "least 1 and more than a block of {}",
        options.max_transfers, options.prefill_min_tokens, options.block_size);
  }
  return absl::OkStatus();
}

absl::Status CheckDisk(const SchedulerOptions& options) {
  if (options.num_disk_blocks == 0) {
    return absl::OkStatus();
  }
  if (options.num_prefill_ranks > 0) {
    return InvalidArgumentF(
        "{} disk blocks and {} prefill ranks, expected one of both: what is handed over "
        "and what is fetched would take each other's host blocks",
        options.num_disk_blocks, options.num_prefill_ranks);
  }
  if (options.max_disk_copies < 1 || options.max_disk_copies > proto::kMaxDiskCopies ||
      options.max_disk_wait <= absl::ZeroDuration()) {
    return InvalidArgumentF(
        "disk blocks with max_disk_copies {} and max_disk_wait {}, expected 1 to {} and "
        "more than nothing",
        options.max_disk_copies, absl::FormatDuration(options.max_disk_wait),
        proto::kMaxDiskCopies);
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status CheckTenants(std::span<const TenantPolicy> configured,
                          const TenantPolicy& others) {
  std::set<std::string_view> names;
  std::vector<TenantPolicy> tenants(configured.begin(), configured.end());
  tenants.push_back(others);
  for (const TenantPolicy& tenant : tenants) {
    if (&tenant != &tenants.back() && !names.insert(tenant.name).second) {
      return InvalidArgumentF("tenant {} is configured twice", tenant.name);
    }
    if (!(tenant.weight > 0) || !std::isfinite(tenant.weight) ||
        tenant.max_running_tokens < 0) {
      return InvalidArgumentF(
          "tenant {} has weight {} and max_running_tokens {}, expected a positive weight "
          "and at least 0",
          tenant.name, tenant.weight, tenant.max_running_tokens);
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<int64_t> CheckLength(const SchedulerOptions& options,
                                    const SequenceSpec& spec, int64_t quota) {
  const int64_t prompt_length = std::ssize(spec.prompt);
  if (prompt_length < 1 || prompt_length >= options.max_model_len ||
      spec.max_tokens < 1) {
    return InvalidArgumentF(
        "prompt of {} tokens and max_tokens {}, expected 1 to {} and at least 1",
        prompt_length, spec.max_tokens, options.max_model_len - 1);
  }
  const int64_t max_length =
      prompt_length + std::min(spec.max_tokens, options.max_model_len - prompt_length);
  if (quota > 0 && max_length > quota) {
    return InvalidArgumentF(
        "prompt of {} tokens and max_tokens {}, expected together at most {}: so many "
        "may run of this tenant",
        prompt_length, spec.max_tokens, quota);
  }
  return max_length;
}

absl::Status CheckSchedulerOptions(const SchedulerOptions& options) {
  TESSERA_RETURN_IF_ERROR(CheckSizes(options));
  TESSERA_RETURN_IF_ERROR(CheckRoles(options));
  TESSERA_RETURN_IF_ERROR(CheckDisk(options));
  return CheckTenants(options.tenants, options.other_tenants);
}

}  // namespace tessera::coordinator
