// Whether SchedulerOptions can work, apart from what BlockManager checks of its own.
// Part of Scheduler::Create and SetTenants.
#ifndef TESSERA_COORDINATOR_SCHEDULER_SCHEDULER_OPTIONS_CHECK_H_
#define TESSERA_COORDINATOR_SCHEDULER_SCHEDULER_OPTIONS_CHECK_H_

#include <span>

#include "absl/status/status.h"

#include "coordinator/scheduler/scheduler.h"

namespace tessera::coordinator {

// kInvalidArgument names the value and what was expected.
absl::Status CheckSchedulerOptions(const SchedulerOptions& options);

// The part of it that Scheduler::SetTenants checks.
absl::Status CheckTenants(std::span<const TenantPolicy> configured,
                          const TenantPolicy& others);

}  // namespace tessera::coordinator

#endif  // TESSERA_COORDINATOR_SCHEDULER_SCHEDULER_OPTIONS_CHECK_H_
