// ThreadPool: the threads of one rank's kernels. One caller splits a range over them and
// waits; nothing is queued, allocated or locked in between. Many ranks share one machine,
// so idle threads spin for a few microseconds only, then let others run, and after a
// tenth of a millisecond sleep in the kernel.
#ifndef TESSERA_KERNELS_CPU_THREAD_POOL_H_
#define TESSERA_KERNELS_CPU_THREAD_POOL_H_

#include <atomic>
#include <cstdint>
#include <memory>
#include <thread>
#include <vector>

#include "absl/status/statusor.h"

#include "common/check.h"

namespace tessera::kernels::cpu {

struct ThreadPoolOptions {
  int num_threads = 1;  // the caller is one of them: 1 starts no thread
  // Binds worker i to the i-th CPU that the creating thread may run on; the caller stays
  // as it is.
  bool pin_threads = false;
};

// Owns its threads; the destructor joins them. One thread at a time, the step thread,
// calls ParallelFor.
class ThreadPool {
 public:
  static constexpr int kMaxThreads = 1024;

  // kInvalidArgument for a thread count outside 1..kMaxThreads or, pinned, above the CPUs
  // allowed; kResourceExhausted if the system starts no more threads.
  static absl::StatusOr<std::unique_ptr<ThreadPool>> Create(
      const ThreadPoolOptions& options);

  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;
  ~ThreadPool();

  int num_threads() const { return static_cast<int>(workers_.size()) + 1; }

  // Calls body(begin, end, thread) for at most `max_parts` consecutive parts of [0,
  // count), part i on thread i, and returns when all are done. Parts are equal to within
  // one element and depend on nothing else. `body` must not throw and must not call
  // ParallelFor.
  template <typename Body>
  void ParallelFor(int64_t count, int max_parts, const Body& body) {
    if (count <= 0) {
      return;
    }
    int parts = max_parts < num_threads() ? max_parts : num_threads();
    parts = count < parts ? static_cast<int>(count) : parts;
    if (parts <= 1) {
      body(int64_t{0}, count, 0);
      return;
    }
    Run(Job{&body,
            [](const void* self, int64_t begin, int64_t end, int thread) {
              (*static_cast<const Body*>(self))(begin, end, thread);
            },
            count, parts, 0});
  }

  // As ParallelFor, for elements that take long and do not take equally long: each thread
  // begins its part from the front, half of what is left of it at a time and at least
  // `grain` elements a call, and one that is done takes such pieces from the end of
  // another's. So body is called several times, for consecutive elements each time, and
  // which thread has which depends on time: results must not depend on it. `count` is at
  // most kMaxShared.
  template <typename Body>
  void ParallelForShared(int64_t count, int64_t grain, int max_parts, const Body& body) {
    const int parts = max_parts < num_threads() ? max_parts : num_threads();
    if (parts <= 1 || count <= grain) {
      if (count > 0) {
        body(int64_t{0}, count, 0);
      }
      return;
    }
    TESSERA_CHECK_LE(count, kMaxShared);
    Run(Job{&body,
            [](const void* self, int64_t begin, int64_t end, int thread) {
              (*static_cast<const Body*>(self))(begin, end, thread);
            },
            count, parts, grain < 1 ? 1 : grain});
  }
  static constexpr int64_t kMaxShared = int64_t{1} << 31;

 private:
  struct Job {
    const void* body = nullptr;
    void (*call)(const void* body, int64_t begin, int64_t end, int thread) = nullptr;
    int64_t count = 0;
    int parts = 0;
    int64_t grain = 0;  // 0: a part is one call

    int64_t BeginOf(int part) const { return count * part / parts; }
  };

  // What is left of a part whose pieces others may take: [begin, end), begin in the upper
  // half. A cache line of its own.
  struct alignas(64) Share {
    std::atomic<uint64_t> range{0};
  };

  // What one worker waits for; a cache line of its own.
  struct alignas(64) Mailbox {
    std::atomic<uint32_t> round{0};  // raised by the caller to start a part
  };

  explicit ThreadPool(int num_workers);

  void Run(const Job& job);
  void RunPart(int part);
  bool TakePiece(Share& share, bool from_front, int64_t* begin, int64_t* end) const;
  void WorkerLoop(int worker);

  std::vector<Mailbox> mailboxes_;
  std::vector<Share> shares_;  // by part
  std::vector<std::thread> workers_;
  Job job_;  // written before a round is raised, read by those it was raised for
  alignas(64) std::atomic<uint32_t> running_{0};
  std::atomic<bool> stop_{false};
};

}  // namespace tessera::kernels::cpu

#endif  // TESSERA_KERNELS_CPU_THREAD_POOL_H_
