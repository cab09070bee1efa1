#include "tests/testing/stub_executor.h"

#include <algorithm>
#include <utility>

namespace tessera::testing {

StubExecutor::StubExecutor(const StubWorkerOptions& options, Clock* clock,
                           absl::Duration step_time)
    : clock_(clock), step_time_(step_time), worker_(options) {}

absl::Status StubExecutor::Submit(proto::StepPlan plan) {
  MutexLock lock(&mutex_);
  if (!failure_.ok()) {
    return failure_;
  }
  if (plans_.size() + results_.size() >= kMaxInFlight) {
    return absl::ResourceExhaustedError("two plans are in flight");
  }
  plans_.push_back(std::move(plan));
  RunReady();
  return absl::OkStatus();
}

absl::Status StubExecutor::SubmitLate(proto::LateInput late) {
  MutexLock lock(&mutex_);
  if (!failure_.ok()) {
    return failure_;
  }
  if (late_.size() >= plans_.size()) {
    return absl::FailedPreconditionError("no plan waits for a late input");
  }
  late_.push_back(std::move(late));
  RunReady();
  return absl::OkStatus();
}

void StubExecutor::RunReady() {
  while (!plans_.empty() && failure_.ok()) {
    const proto::StepPlan& plan = plans_.front();
    const bool masked =
        std::any_of(plan.work.begin(), plan.work.end(),
                    [](const proto::SlotWork& work) { return work.masked; });
    if (masked && late_.empty()) {
      return;
    }
    absl::StatusOr<proto::StepResult> result =
        worker_.Execute(plan, masked ? &late_.front() : nullptr);
    if (result.ok()) {
      results_.push_back(*std::move(result));
    } else {
      failure_ = result.status();
    }
    ++num_steps_;
    plans_.pop_front();
    if (masked) {
      late_.pop_front();
    }
  }
}

absl::StatusOr<proto::StepResult> StubExecutor::Wait(absl::Time deadline) {
  bool hung = false;
  {
    MutexLock lock(&mutex_);
    if (!failure_.ok()) {
      return failure_;
    }
    if (results_.empty() && plans_.empty()) {
      return absl::FailedPreconditionError("no plan is in flight");
    }
    hung = hung_ || results_.empty();
  }
  if (hung) {
    clock_->Sleep(deadline - clock_->Now());
    return absl::DeadlineExceededError("the stub is hung");
  }
  if (step_time_ > absl::ZeroDuration()) {
    clock_->Sleep(step_time_);
  }
  MutexLock lock(&mutex_);
  if (!failure_.ok()) {
    return failure_;
  }
  proto::StepResult result = std::move(results_.front());
  results_.pop_front();
  if (wrong_step_) {
    ++result.step;
  }
  return result;
}

void StubExecutor::Abort(absl::Status reason) {
  MutexLock lock(&mutex_);
  if (abort_reason_.ok()) {
    abort_reason_ = std::move(reason);
  }
  if (failure_.ok()) {
    failure_ = absl::AbortedError("the group was torn down");
  }
}

void StubExecutor::Fail(absl::Status status) {
  MutexLock lock(&mutex_);
  failure_ = std::move(status);
}

void StubExecutor::SetHung(bool hung) {
  MutexLock lock(&mutex_);
  hung_ = hung;
}

void StubExecutor::SetWrongStep(bool wrong) {
  MutexLock lock(&mutex_);
  wrong_step_ = wrong;
}

int64_t StubExecutor::num_steps() const {
  MutexLock lock(&mutex_);
  return num_steps_;
}

int64_t StubExecutor::num_live_slots() const {
  MutexLock lock(&mutex_);
  return worker_.num_live_slots();
}

absl::Status StubExecutor::abort_reason() const {
  MutexLock lock(&mutex_);
  return abort_reason_;
}

}  // namespace tessera::testing
