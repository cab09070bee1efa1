#include "worker/service/rank_thread.h"

#include <system_error>
#include <utility>

#include "common/status.h"

namespace tessera::worker {

RankThread::RankThread(const Options& options, ExecuteFunction execute,
                       AbortHook abort_hook)
    : name_(options.name),
      execute_(std::move(execute)),
      abort_hook_(std::move(abort_hook)) {}

absl::StatusOr<std::unique_ptr<RankThread>> RankThread::Create(const Options& options,
                                                               ExecuteFunction execute,
                                                               AbortHook abort_hook) {
  if (!execute) {
    return InvalidArgumentF("{}: no function to execute plans", options.name);
  }
  std::unique_ptr<RankThread> rank(
      new RankThread(options, std::move(execute), std::move(abort_hook)));
  try {
    rank->thread_ = std::thread([self = rank.get()] { self->RunPlans(); });
  } catch (const std::system_error& error) {
    return StatusF(absl::StatusCode::kResourceExhausted, "{}: no thread: {}",
                   options.name, error.what());
  }
  return rank;
}

RankThread::~RankThread() {
  Abort(absl::AbortedError("rank thread destroyed"));
  if (thread_.joinable()) {
    thread_.join();
  }
}

absl::Status RankThread::Submit(proto::StepPlan plan) {
  MutexLock lock(&mutex_);
  if (!end_.ok()) {
    return end_;
  }
  if (num_in_flight() >= static_cast<size_t>(kMaxInFlight)) {
    return StatusF(absl::StatusCode::kResourceExhausted, "{}: {} plans in flight", name_,
                   num_in_flight());
  }
  plans_.push_back(std::move(plan));
  return absl::OkStatus();
}

absl::Status RankThread::SubmitLate(proto::LateInput late) {
  MutexLock lock(&mutex_);
  if (!end_.ok()) {
    return end_;
  }
  if (late_.size() >= plans_.size() + (executing_ ? 1 : 0)) {
    return StatusF(absl::StatusCode::kFailedPrecondition,
                   "{}: late input of step {}, which is not in flight", name_, late.step);
  }
  late_.push_back(std::move(late));
  return absl::OkStatus();
}

absl::StatusOr<proto::LateInput> RankThread::WaitLate(const proto::StepPlan& plan) {
  MutexLock lock(&mutex_);
  const auto ready = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    return !late_.empty() || !end_.ok();
  };
  mutex_.Await(Condition(&ready));
  if (!end_.ok()) {
    return end_;
  }
  proto::LateInput late = std::move(late_.front());
  late_.pop_front();
  if (late.epoch != plan.epoch || late.step != plan.step) {
    return InvalidArgumentF("late input of epoch {} step {}, expected epoch {} step {}",
                            late.epoch, late.step, plan.epoch, plan.step);
  }
  return late;
}

absl::StatusOr<proto::StepResult> RankThread::Wait(absl::Time deadline) {
  MutexLock lock(&mutex_);
  if (end_.ok() && num_in_flight() == 0) {
    return StatusF(absl::StatusCode::kFailedPrecondition, "{}: no plan in flight", name_);
  }
  const auto ready = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    return !results_.empty() || !end_.ok();
  };
  if (!mutex_.AwaitWithDeadline(Condition(&ready), deadline)) {
    return DeadlineExceededF("{}: step not finished", name_);
  }
  if (results_.empty()) {
    return end_;
  }
  proto::StepResult result = std::move(results_.front());
  results_.pop_front();
  return result;
}

void RankThread::Abort(absl::Status reason) {
  const std::string text(reason.message().data(), reason.message().size());
  End(StatusF(absl::StatusCode::kAborted, "{}: {}", name_, text), /*drop_results=*/true);
}

bool RankThread::End(absl::Status status, bool drop_results) {
  {
    MutexLock lock(&mutex_);
    plans_.clear();
    late_.clear();
    if (drop_results) {
      results_.clear();
    }
    if (!end_.ok()) {
      return false;
    }
    end_ = status;
  }
  if (abort_hook_) {
    abort_hook_(status);
  }
  return true;
}

void RankThread::RunPlans() {
  const auto ready = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    return !plans_.empty() || !end_.ok();
  };
  while (true) {
    proto::StepPlan plan;
    {
      MutexLock lock(&mutex_);
      mutex_.Await(Condition(&ready));
      if (!end_.ok()) {
        return;
      }
      plan = std::move(plans_.front());
      plans_.pop_front();
      executing_ = true;
    }
    absl::StatusOr<proto::StepResult> result =
        execute_(plan, [this, &plan] { return WaitLate(plan); });
    {
      MutexLock lock(&mutex_);
      if (!end_.ok()) {
        return;
      }
      if (result.ok()) {
        executing_ = false;
        results_.push_back(std::move(result).value());
      }
      // Else the step stays in flight until End says why, so that a Wait in between
      // waits for the reason.
    }
    if (!result.ok()) {
      // The other ranks of the group wait for this one in a collective; the hook tells
      // them.
      End(WithContext(result.status(), name_), /*drop_results=*/false);
      return;
    }
  }
}

}  // namespace tessera::worker
