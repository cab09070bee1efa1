// StepExecutor: runs StepPlans on one rank, in order. In-process (a thread) or across a
// gRPC stream; a stub model stands in for it in tests. The coordinator holds one per rank
// and keeps at most `kMaxInFlight` plans in flight (run-ahead by one).
#ifndef TESSERA_PROTO_STEP_EXECUTOR_H_
#define TESSERA_PROTO_STEP_EXECUTOR_H_

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"

#include "proto/step_plan.h"

namespace tessera::proto {

// One thread submits and waits; Abort may come from any thread.
class StepExecutor {
 public:
  static constexpr int kMaxInFlight = 2;

  virtual ~StepExecutor() = default;

  // Hands a plan over and returns at once. kResourceExhausted: kMaxInFlight plans are in
  // flight. kUnavailable or kAborted: the rank is gone or its group was torn down.
  virtual absl::Status Submit(StepPlan plan) = 0;

  // The result of the oldest plan in flight. kDeadlineExceeded (the plan stays in
  // flight), kUnavailable, kAborted, or the error with which the step failed on the rank:
  // the epoch is then over and every later call returns an error.
  virtual absl::StatusOr<StepResult> Wait(absl::Time deadline) = 0;

  // Tears the rank's group down: pending and later calls fail with kAborted. Idempotent.
  virtual void Abort(absl::Status reason) = 0;
};

}  // namespace tessera::proto

#endif  // TESSERA_PROTO_STEP_EXECUTOR_H_
