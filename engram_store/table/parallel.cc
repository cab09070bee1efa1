#include "engram_store/table/parallel.h"

#include <algorithm>
#include <atomic>
#include <thread>
#include <vector>

#include "common/mutex.h"

namespace tessera::engram_store {
namespace {

constexpr int kMaxLoadThreads = 16;

}  // namespace

absl::Status ParallelFor(size_t count, int num_threads,
                         const std::function<absl::Status(size_t)>& work) {
  std::atomic<size_t> next{0};
  Mutex mutex;
  size_t failed_index = count;
  absl::Status failure;
  const auto drain = [&] {
    for (size_t i = next.fetch_add(1); i < count; i = next.fetch_add(1)) {
      absl::Status status = work(i);
      if (!status.ok()) {
        MutexLock lock(&mutex);
        if (i < failed_index) {
          failed_index = i;
          failure = std::move(status);
        }
      }
    }
  };
  {
    std::vector<std::jthread> threads;
    const size_t helpers =
        std::min(count, static_cast<size_t>(std::clamp(num_threads, 1, 256)));
    for (size_t i = 1; i < helpers; ++i) {
      threads.emplace_back(drain);
    }
    drain();
  }
  return failure;
}

int DefaultLoadThreads() {
  return std::clamp(static_cast<int>(std::thread::hardware_concurrency()), 1,
                    kMaxLoadThreads);
}

}  // namespace tessera::engram_store
