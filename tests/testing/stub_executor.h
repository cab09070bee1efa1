// StubExecutor: a StepExecutor over a StubWorker, with faults on demand. Plans run inside
// Submit, those with masked work inside SubmitLate; Wait hands the results over and, on a
// simulated clock, takes the step's time.
#ifndef TESSERA_TESTS_TESTING_STUB_EXECUTOR_H_
#define TESSERA_TESTS_TESTING_STUB_EXECUTOR_H_

#include <cstdint>
#include <deque>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"

#include "common/clock.h"
#include "common/mutex.h"
#include "proto/step_executor.h"
#include "tests/testing/stub_worker.h"

namespace tessera::testing {

// Thread-safe.
class StubExecutor final : public proto::StepExecutor {
 public:
  // `clock` is slept on for `step_time` in each Wait; it must outlive the executor.
  StubExecutor(const StubWorkerOptions& options, Clock* clock,
               absl::Duration step_time = absl::ZeroDuration());

  absl::Status Submit(proto::StepPlan plan) override;
  absl::Status SubmitLate(proto::LateInput late) override;
  absl::StatusOr<proto::StepResult> Wait(absl::Time deadline) override;
  void Abort(absl::Status reason) override;

  // From now on every call fails so: the rank died.
  void Fail(absl::Status status);
  // While hung, Wait sleeps until its deadline.
  void SetHung(bool hung);
  // Results name a step that was not asked for.
  void SetWrongStep(bool wrong);

  int64_t num_steps() const;
  int64_t num_live_slots() const;
  absl::Status abort_reason() const;

 private:
  // Runs plans up to the first whose late input has not come.
  void RunReady() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  Clock* const clock_;
  const absl::Duration step_time_;
  mutable Mutex mutex_;
  StubWorker worker_ ABSL_GUARDED_BY(mutex_);
  std::deque<proto::StepPlan> plans_ ABSL_GUARDED_BY(mutex_);
  std::deque<proto::LateInput> late_ ABSL_GUARDED_BY(mutex_);
  std::deque<proto::StepResult> results_ ABSL_GUARDED_BY(mutex_);
  absl::Status failure_ ABSL_GUARDED_BY(mutex_);
  absl::Status abort_reason_ ABSL_GUARDED_BY(mutex_);
  bool hung_ ABSL_GUARDED_BY(mutex_) = false;
  bool wrong_step_ ABSL_GUARDED_BY(mutex_) = false;
  int64_t num_steps_ ABSL_GUARDED_BY(mutex_) = 0;
};

}  // namespace tessera::testing

#endif  // TESSERA_TESTS_TESTING_STUB_EXECUTOR_H_
