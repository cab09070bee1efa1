#include "coordinator/api/connection_hub.h"

namespace tessera::coordinator {

void ConnectionHub::BeginAnswer() {
  MutexLock lock(&mutex_);
  ++num_answers_;
}

void ConnectionHub::EndAnswer() {
  MutexLock lock(&mutex_);
  --num_answers_;
}

int64_t ConnectionHub::AwaitNoAnswers(absl::Duration timeout) {
  MutexLock lock(&mutex_);
  const auto none = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    return num_answers_ == 0;
  };
  mutex_.AwaitWithTimeout(Condition(&none), timeout);
  return num_answers_;
}

void ConnectionHub::SetStopped() {
  MutexLock lock(&stop_mutex_);
  stopped_ = true;
}

ConnectionHub::Closers::iterator ConnectionHub::AddCloser(std::function<void()> closer) {
  MutexLock lock(&mutex_);
  return closers_.insert(closers_.end(), std::move(closer));
}

void ConnectionHub::RemoveCloser(Closers::iterator closer) {
  MutexLock lock(&mutex_);
  closers_.erase(closer);
}

ConnectionHub::Closers ConnectionHub::CopyClosers() {
  MutexLock lock(&mutex_);
  return closers_;
}

}  // namespace tessera::coordinator
