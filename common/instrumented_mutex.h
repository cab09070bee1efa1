// Abseil's Mutex, MutexLock, ReaderMutexLock and Notification over the standard library,
// as far as this repository uses them: the same contracts and the same clang annotations.
// Only common/mutex.h and its test include this; the thread sanitizer follows these and
// not Abseil's. They are not tuned: every unlock wakes every waiter.
#ifndef TESSERA_COMMON_INSTRUMENTED_MUTEX_H_
#define TESSERA_COMMON_INSTRUMENTED_MUTEX_H_

#include <condition_variable>
#include <shared_mutex>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"

namespace tessera {

// Thread-safe, not recursive. As with Abseil's, the thread that a wait or a lock lets
// through may destroy the mutex once no other thread is about to take it: Unlock() wakes
// the waiters while it still holds the lock, and touches nothing afterwards.
class ABSL_LOCKABLE InstrumentedMutex {
 public:
  InstrumentedMutex() = default;
  InstrumentedMutex(const InstrumentedMutex&) = delete;
  InstrumentedMutex& operator=(const InstrumentedMutex&) = delete;

  void Lock() ABSL_EXCLUSIVE_LOCK_FUNCTION() ABSL_NO_THREAD_SAFETY_ANALYSIS {
    mutex_.lock();
  }
  void Unlock() ABSL_UNLOCK_FUNCTION() ABSL_NO_THREAD_SAFETY_ANALYSIS {
    WakeWaiters();
    mutex_.unlock();
  }
  void ReaderLock() ABSL_SHARED_LOCK_FUNCTION() ABSL_NO_THREAD_SAFETY_ANALYSIS {
    mutex_.lock_shared();
  }
  // A reader changed nothing, so nobody has to look again.
  void ReaderUnlock() ABSL_UNLOCK_FUNCTION() ABSL_NO_THREAD_SAFETY_ANALYSIS {
    mutex_.unlock_shared();
  }

  // Lets go of the lock until `condition` holds; the caller holds the lock exclusively
  // before and after.
  void Await(const absl::Condition& condition) ABSL_EXCLUSIVE_LOCKS_REQUIRED(this) {
    AwaitWithDeadline(condition, absl::InfiniteFuture());
  }

  // The same, at most until `deadline`. Returns whether `condition` holds.
  bool AwaitWithDeadline(const absl::Condition& condition, absl::Time deadline)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(this) {
    if (condition.Eval()) {
      return true;
    }
    // Once is enough: what this thread changed under the lock, it changed before the
    // wait.
    WakeWaiters();
    ++waiters_;
    bool in_time = true;
    while (in_time && !condition.Eval()) {
      in_time = WaitForUnlock(deadline);
    }
    --waiters_;
    return in_time || condition.Eval();
  }

  // The same, at most for `timeout`.
  bool AwaitWithTimeout(const absl::Condition& condition, absl::Duration timeout)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(this) {
    return AwaitWithDeadline(condition, absl::Now() + timeout);
  }

 private:
  void WakeWaiters() {
    if (waiters_ > 0) {
      changed_.notify_all();
    }
  }

  // Returns false when the deadline came first.
  bool WaitForUnlock(absl::Time deadline) ABSL_NO_THREAD_SAFETY_ANALYSIS {
    if (deadline == absl::InfiniteFuture()) {
      changed_.wait(mutex_);
      return true;
    }
    return changed_.wait_until(mutex_, absl::ToChronoTime(deadline)) ==
           std::cv_status::no_timeout;
  }

  std::shared_mutex mutex_;
  std::condition_variable_any changed_;
  int waiters_ = 0;  // Guarded by mutex_.
};

// Holds `mutex`, which outlives it, for a scope. Used by one thread.
class ABSL_SCOPED_LOCKABLE InstrumentedMutexLock {
 public:
  explicit InstrumentedMutexLock(InstrumentedMutex* mutex)
      ABSL_EXCLUSIVE_LOCK_FUNCTION(mutex)
      : mutex_(mutex) {
    mutex_->Lock();
  }
  InstrumentedMutexLock(const InstrumentedMutexLock&) = delete;
  InstrumentedMutexLock& operator=(const InstrumentedMutexLock&) = delete;
  ~InstrumentedMutexLock() ABSL_UNLOCK_FUNCTION() { mutex_->Unlock(); }

 private:
  InstrumentedMutex* const mutex_;
};

// The same beside other readers.
class ABSL_SCOPED_LOCKABLE InstrumentedReaderMutexLock {
 public:
  explicit InstrumentedReaderMutexLock(InstrumentedMutex* mutex)
      ABSL_SHARED_LOCK_FUNCTION(mutex)
      : mutex_(mutex) {
    mutex_->ReaderLock();
  }
  InstrumentedReaderMutexLock(const InstrumentedReaderMutexLock&) = delete;
  InstrumentedReaderMutexLock& operator=(const InstrumentedReaderMutexLock&) = delete;
  ~InstrumentedReaderMutexLock() ABSL_UNLOCK_FUNCTION() { mutex_->ReaderUnlock(); }

 private:
  InstrumentedMutex* const mutex_;
};

// Happens once. Thread-safe; a thread that saw it notified may destroy it.
class InstrumentedNotification {
 public:
  InstrumentedNotification() = default;
  InstrumentedNotification(const InstrumentedNotification&) = delete;
  InstrumentedNotification& operator=(const InstrumentedNotification&) = delete;

  // At most once.
  void Notify() {
    InstrumentedMutexLock lock(&mutex_);
    notified_ = true;
  }
  bool HasBeenNotified() const {
    InstrumentedMutexLock lock(&mutex_);
    return notified_;
  }
  void WaitForNotification() const {
    WaitForNotificationWithDeadline(absl::InfiniteFuture());
  }
  // Return whether it happened in time.
  bool WaitForNotificationWithTimeout(absl::Duration timeout) const {
    return WaitForNotificationWithDeadline(absl::Now() + timeout);
  }
  bool WaitForNotificationWithDeadline(absl::Time deadline) const {
    InstrumentedMutexLock lock(&mutex_);
    return mutex_.AwaitWithDeadline(absl::Condition(&notified_), deadline);
  }

 private:
  mutable InstrumentedMutex mutex_;
  bool notified_ ABSL_GUARDED_BY(mutex_) = false;
};

}  // namespace tessera

#endif  // TESSERA_COMMON_INSTRUMENTED_MUTEX_H_
