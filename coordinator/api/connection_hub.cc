#include "coordinator/api/connection_hub.h"

namespace tessera::coordinator {

void ConnectionHub::BeginAnswer() {
  absl::MutexLock lock(&mutex_);
  ++num_answers_;
}

void ConnectionHub::EndAnswer() {
  absl::MutexLock lock(&mutex_);
  --num_answers_;
}

int64_t ConnectionHub::AwaitNoAnswers(absl::Duration timeout) {
  absl::MutexLock lock(&mutex_);
  const auto none = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    return num_answers_ == 0;
  };
  mutex_.AwaitWithTimeout(absl::Condition(&none), timeout);
  return num_answers_;
}

void ConnectionHub::SetStopped() {
  absl::MutexLock lock(&stop_mutex_);
  stopped_ = true;
}

ConnectionHub::Closers::iterator ConnectionHub::AddCloser(std::function<void()> closer) {
  absl::MutexLock lock(&mutex_);
  return closers_.insert(closers_.end(), std::move(closer));
}

void ConnectionHub::RemoveCloser(Closers::iterator closer) {
  absl::MutexLock lock(&mutex_);
  closers_.erase(closer);
}

ConnectionHub::Closers ConnectionHub::CopyClosers() {
  absl::MutexLock lock(&mutex_);
  return closers_;
}

}  // namespace tessera::coordinator
