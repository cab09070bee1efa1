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
            count, parts});
  }

 private:
  struct Job {
    const void* body = nullptr;
    void (*call)(const void* body, int64_t begin, int64_t end, int thread) = nullptr;
    int64_t count = 0;
    int parts = 0;

    void RunPart(int part) const {
      call(body, count * part / parts, count * (part + 1) / parts, part);
    }
  };

  // What one worker waits for; a cache line of its own.
  struct alignas(64) Mailbox {
    std::atomic<uint32_t> round{0};  // raised by the caller to start a part
  };

  explicit ThreadPool(int num_workers);

  void Run(const Job& job);
  void WorkerLoop(int worker);

  std::vector<Mailbox> mailboxes_;
  std::vector<std::thread> workers_;
  Job job_;  // written before a round is raised, read by those it was raised for
  alignas(64) std::atomic<uint32_t> running_{0};
  std::atomic<bool> stop_{false};
};

}  // namespace tessera::kernels::cpu

#endif  // TESSERA_KERNELS_CPU_THREAD_POOL_H_
