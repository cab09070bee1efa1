// StepExecutor: runs StepPlans on one rank, in order. In-process (a thread) or across a
// gRPC stream; a stub model stands in for it in tests. The coordinator holds one per rank
// and keeps at most `kMaxInFlight` plans in flight (run-ahead by one).
#ifndef TESSERA_PROTO_STEP_EXECUTOR_H_
#define TESSERA_PROTO_STEP_EXECUTOR_H_

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"

#include "proto/step_plan.h"

namespace tessera::proto {

// What a rank calls inside a step with masked work, once, where it needs the masks: the
// late input of that step. Blocks until it has come; an error ends the step.
using LateInputFunction = absl::FunctionRef<absl::StatusOr<LateInput>()>;

// One thread submits and waits; Abort may come from any thread.
class StepExecutor {
 public:
  static constexpr int kMaxInFlight = 2;

  virtual ~StepExecutor() = default;

  // Hands a plan over and returns at once. kResourceExhausted: kMaxInFlight plans are in
  // flight. kUnavailable or kAborted: the rank is gone or its group was torn down.
  virtual absl::Status Submit(StepPlan plan) = 0;

  // Hands over the late input of a plan with masked work that was submitted and not yet
  // answered, once, in the order of the plans; returns at once. Until it comes the step
  // waits. kFailedPrecondition: the step is not in flight; kUnavailable or kAborted as
  // with Submit.
  virtual absl::Status SubmitLate(LateInput late) = 0;

  // The result of the oldest plan in flight. kDeadlineExceeded (the plan stays in
  // flight), kUnavailable, kAborted, or the error with which the step failed on the rank:
  // the epoch is then over and every later call returns an error.
  virtual absl::StatusOr<StepResult> Wait(absl::Time deadline) = 0;

  // Tears the rank's group down: pending and later calls fail with kAborted. Idempotent.
  virtual void Abort(absl::Status reason) = 0;
};

}  // namespace tessera::proto

#endif  // TESSERA_PROTO_STEP_EXECUTOR_H_
