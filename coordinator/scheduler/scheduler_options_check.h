// Whether SchedulerOptions can work, apart from what BlockManager checks of its own, and
// whether a sequence can under them. Part of Scheduler::Create, SetTenants and Enqueue.
#ifndef TESSERA_COORDINATOR_SCHEDULER_SCHEDULER_OPTIONS_CHECK_H_
#define TESSERA_COORDINATOR_SCHEDULER_SCHEDULER_OPTIONS_CHECK_H_

#include <cstdint>
#include <span>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

#include "coordinator/scheduler/scheduler.h"

namespace tessera::coordinator {

// kInvalidArgument names the value and what was expected.
absl::Status CheckSchedulerOptions(const SchedulerOptions& options);

// The part of it that Scheduler::SetTenants checks.
absl::Status CheckTenants(std::span<const TenantPolicy> configured,
                          const TenantPolicy& others);

// The greatest length of a new sequence, of which a tenant may run `quota` tokens (0: any
// number). kInvalidArgument: it can never run.
absl::StatusOr<int64_t> CheckLength(const SchedulerOptions& options,
                                    const SequenceSpec& spec, int64_t quota);

}  // namespace tessera::coordinator

#endif  // TESSERA_COORDINATOR_SCHEDULER_SCHEDULER_OPTIONS_CHECK_H_
