// BoundedQueue<T>: the only way in which threads of one process hand work to each other.
// Many producers and consumers; at most `capacity` elements; closing it wakes everyone.
//
// State: open -> closed, once. Elements pushed before Close() can still be popped after
// it. Ordering: a Push happens-before the Pop that returns its element.
#ifndef TESSERA_COMMON_BOUNDED_QUEUE_H_
#define TESSERA_COMMON_BOUNDED_QUEUE_H_

#include <cstddef>
#include <deque>
#include <optional>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"

#include "common/mutex.h"

namespace tessera {

// Thread-safe. Must outlive every call in progress.
template <typename T>
class BoundedQueue {
 public:
  explicit BoundedQueue(size_t capacity) : capacity_(capacity) {}
  BoundedQueue(const BoundedQueue&) = delete;
  BoundedQueue& operator=(const BoundedQueue&) = delete;

  // Never blocks. kResourceExhausted when full, kCancelled when closed; `value` is kept
  // by the caller then.
  absl::Status TryPush(T&& value) {
    MutexLock lock(&mutex_);
    if (closed_) {
      return absl::CancelledError("queue closed");
    }
    if (items_.size() >= capacity_) {
      return absl::ResourceExhaustedError("queue full");
    }
    items_.push_back(std::move(value));
    return absl::OkStatus();
  }

  // Blocks until an element, the deadline (kDeadlineExceeded) or Close on an empty queue
  // (kCancelled).
  absl::StatusOr<T> Pop(absl::Time deadline = absl::InfiniteFuture()) {
    MutexLock lock(&mutex_);
    const auto ready = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
      return closed_ || !items_.empty();
    };
    if (!mutex_.AwaitWithDeadline(Condition(&ready), deadline)) {
      return absl::DeadlineExceededError("queue empty");
    }
    if (items_.empty()) {
      return absl::CancelledError("queue closed");
    }
    T value = std::move(items_.front());
    items_.pop_front();
    return value;
  }

  // Never blocks; nullopt when empty.
  std::optional<T> TryPop() {
    MutexLock lock(&mutex_);
    if (items_.empty()) {
      return std::nullopt;
    }
    T value = std::move(items_.front());
    items_.pop_front();
    return value;
  }

  // Idempotent. Wakes every waiter.
  void Close() {
    MutexLock lock(&mutex_);
    closed_ = true;
  }

  size_t size() const {
    MutexLock lock(&mutex_);
    return items_.size();
  }

 private:
  const size_t capacity_;
  mutable Mutex mutex_;
  std::deque<T> items_ ABSL_GUARDED_BY(mutex_);
  bool closed_ ABSL_GUARDED_BY(mutex_) = false;
};

}  // namespace tessera

#endif  // TESSERA_COMMON_BOUNDED_QUEUE_H_
