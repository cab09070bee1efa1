// RankThread: the in-process StepExecutor. It owns the step thread of one rank and runs
// plans on it, in order, through a function that the owner supplies
// (ModelRunner::Execute, or a stub in tests). It knows neither models nor communicators:
// a hook tears those down.
//
// State: running -> ended, once; by a failed step or by Abort. After a failed step the
// results of earlier plans can still be fetched, then every call returns the step's
// error. After Abort every call returns kAborted. Ordering: a Submit happens-before the
// execution of its plan, which happens-before the Wait that returns its result.
#ifndef TESSERA_WORKER_SERVICE_RANK_THREAD_H_
#define TESSERA_WORKER_SERVICE_RANK_THREAD_H_

#include <deque>
#include <functional>
#include <memory>
#include <string>
#include <thread>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"

#include "common/mutex.h"
#include "proto/step_executor.h"
#include "proto/step_plan.h"

namespace tessera::worker {

// One thread submits and waits; Abort may come from any thread. Destroying it aborts what
// still runs and joins the thread, so the hook must be able to interrupt the execution.
class RankThread final : public proto::StepExecutor {
 public:
  struct Options {
    std::string name;  // for the thread and for errors, e.g. "rank 3"
  };
  // Runs on the rank's thread. What it calls for the late input returns the end of the
  // rank if that comes first.
  using ExecuteFunction = std::function<absl::StatusOr<proto::StepResult>(
      const proto::StepPlan&, proto::LateInputFunction)>;
  // Makes an Execute in progress return soon, e.g. Communicator::Abort of the rank's
  // groups. Called once at most, when the rank ends, on the thread that ended it.
  using AbortHook = std::function<void(const absl::Status& reason)>;

  // What the functions refer to must outlive the RankThread. kInvalidArgument without
  // `execute`; kResourceExhausted if no thread can be started.
  static absl::StatusOr<std::unique_ptr<RankThread>> Create(const Options& options,
                                                            ExecuteFunction execute,
                                                            AbortHook abort_hook);
  ~RankThread() override;
  RankThread(const RankThread&) = delete;
  RankThread& operator=(const RankThread&) = delete;

  absl::Status Submit(proto::StepPlan plan) override;
  absl::Status SubmitLate(proto::LateInput late) override;
  // As StepExecutor::Wait; kFailedPrecondition if no plan is in flight.
  absl::StatusOr<proto::StepResult> Wait(absl::Time deadline) override;
  void Abort(absl::Status reason) override;

 private:
  RankThread(const Options& options, ExecuteFunction execute, AbortHook abort_hook);

  void RunPlans();
  absl::StatusOr<proto::LateInput> WaitLate(const proto::StepPlan& plan);
  // Ends the rank with `status`; the first end stays. True for the call that ended it.
  bool End(absl::Status status, bool drop_results);
  size_t num_in_flight() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    return plans_.size() + (executing_ ? 1 : 0) + results_.size();
  }

  const std::string name_;
  const ExecuteFunction execute_;
  const AbortHook abort_hook_;

  mutable Mutex mutex_;
  std::deque<proto::StepPlan> plans_ ABSL_GUARDED_BY(mutex_);
  // Of the plan that executes and of those behind it; at most one each.
  std::deque<proto::LateInput> late_ ABSL_GUARDED_BY(mutex_);
  std::deque<proto::StepResult> results_ ABSL_GUARDED_BY(mutex_);
  bool executing_ ABSL_GUARDED_BY(mutex_) = false;
  absl::Status end_ ABSL_GUARDED_BY(mutex_);  // OK while running
  std::thread thread_;
};

}  // namespace tessera::worker

#endif  // TESSERA_WORKER_SERVICE_RANK_THREAD_H_
