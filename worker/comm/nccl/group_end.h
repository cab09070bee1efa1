// GroupEnd: why a group ended, for its ranks in this process.
#ifndef TESSERA_WORKER_COMM_NCCL_GROUP_END_H_
#define TESSERA_WORKER_COMM_NCCL_GROUP_END_H_

#include <atomic>
#include <string>
#include <string_view>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"

#include "common/mutex.h"
#include "common/status.h"

namespace tessera::worker {

// Thread-safe; the first reason stays.
class GroupEnd {
 public:
  void Set(std::string_view reason) {
    MutexLock lock(&mutex_);
    if (!ended_.load(std::memory_order_relaxed)) {
      reason_.assign(reason);
      ended_.store(true, std::memory_order_release);
    }
  }
  // kAborted once it is set, in the group's name.
  absl::Status Check(std::string_view group) const {
    if (!ended_.load(std::memory_order_acquire)) {
      return absl::OkStatus();
    }
    MutexLock lock(&mutex_);
    return StatusF(absl::StatusCode::kAborted, "{}: group torn down: {}", group, reason_);
  }

 private:
  mutable Mutex mutex_;
  std::atomic<bool> ended_ = false;
  std::string reason_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace tessera::worker

#endif  // TESSERA_WORKER_COMM_NCCL_GROUP_END_H_
