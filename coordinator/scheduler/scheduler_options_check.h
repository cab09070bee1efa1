// Whether SchedulerOptions can work, apart from what BlockManager checks of its own.
// Part of Scheduler::Create.
#ifndef TESSERA_COORDINATOR_SCHEDULER_SCHEDULER_OPTIONS_CHECK_H_
#define TESSERA_COORDINATOR_SCHEDULER_SCHEDULER_OPTIONS_CHECK_H_

#include "absl/status/status.h"

#include "coordinator/scheduler/scheduler.h"

namespace tessera::coordinator {

// kInvalidArgument names the value and what was expected.
absl::Status CheckSchedulerOptions(const SchedulerOptions& options);

}  // namespace tessera::coordinator

#endif  // TESSERA_COORDINATOR_SCHEDULER_SCHEDULER_OPTIONS_CHECK_H_
