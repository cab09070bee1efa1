#include "kernels/cpu/thread_pool.h"

#include <algorithm>
#include <system_error>

#include "fmt/format.h"
#include <pthread.h>
#include <sched.h>

#include "common/status.h"

namespace tessera::kernels::cpu {
namespace {

// About 5 us on a 3 GHz core: the gap between most ops of a step is shorter.
constexpr int kSpins = 400;
// Then the core is offered to others, each time for about half a microsecond where nobody
// wants it: some gaps of a step are 50 us long, and waking a sleeping thread takes as
// long again. A wait for the network or for the next step is longer.
constexpr int kYields = 200;

void Pause() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#endif
}

// Returns once `value` is no longer `seen`.
void WaitWhile(const std::atomic<uint32_t>& value, uint32_t seen) {
  for (int spin = 0; spin < kSpins; ++spin) {
    if (value.load(std::memory_order_acquire) != seen) {
      return;
    }
    Pause();
  }
  for (int yield = 0; yield < kYields; ++yield) {
    if (value.load(std::memory_order_acquire) != seen) {
      return;
    }
    std::this_thread::yield();
  }
  while (value.load(std::memory_order_acquire) == seen) {
    value.wait(seen, std::memory_order_acquire);
  }
}

uint64_t PackRange(int64_t begin, int64_t end) {
  return static_cast<uint64_t>(begin) << 32 | static_cast<uint64_t>(end);
}

// The CPUs that this thread may run on, in rising order.
std::vector<int> AllowedCpus() {
  cpu_set_t set;
  CPU_ZERO(&set);
  std::vector<int> cpus;
  if (sched_getaffinity(0, sizeof(set), &set) == 0) {
    for (int cpu = 0; cpu < CPU_SETSIZE; ++cpu) {
      if (CPU_ISSET(static_cast<size_t>(cpu), &set)) {
        cpus.push_back(cpu);
      }
    }
  }
  return cpus;
}

absl::Status Pin(std::thread& thread, int cpu) {
  cpu_set_t set;
  CPU_ZERO(&set);
  CPU_SET(static_cast<size_t>(cpu), &set);
  const int error = pthread_setaffinity_np(thread.native_handle(), sizeof(set), &set);
  if (error != 0) {
    return absl::InvalidArgumentError(
        fmt::format("cannot bind a kernel thread to cpu {}: error {}", cpu, error));
  }
  return absl::OkStatus();
}

}  // namespace

ThreadPool::ThreadPool(int num_workers)
    : mailboxes_(static_cast<size_t>(num_workers)),
      shares_(static_cast<size_t>(num_workers) + 1) {
  workers_.reserve(static_cast<size_t>(num_workers));
}

absl::StatusOr<std::unique_ptr<ThreadPool>> ThreadPool::Create(
    const ThreadPoolOptions& options) {
  if (options.num_threads < 1 || options.num_threads > kMaxThreads) {
    return absl::InvalidArgumentError(fmt::format("{} kernel threads, expected 1 to {}",
                                                  options.num_threads, kMaxThreads));
  }
  const std::vector<int> cpus = AllowedCpus();
  if (options.pin_threads && static_cast<size_t>(options.num_threads) > cpus.size()) {
    return absl::InvalidArgumentError(
        fmt::format("{} pinned kernel threads, but {} cpus allowed", options.num_threads,
                    cpus.size()));
  }
  std::unique_ptr<ThreadPool> pool(new ThreadPool(options.num_threads - 1));
  for (int worker = 0; worker + 1 < options.num_threads; ++worker) {
    try {
      pool->workers_.emplace_back(
          [self = pool.get(), worker] { self->WorkerLoop(worker); });
    } catch (const std::system_error& error) {
      return absl::ResourceExhaustedError(
          fmt::format("cannot start kernel thread {}: {}", worker + 1, error.what()));
    }
    if (options.pin_threads) {
      const absl::Status pinned =
          Pin(pool->workers_.back(), cpus[static_cast<size_t>(worker) + 1]);
      if (!pinned.ok()) {
        return pinned;
      }
    }
  }
  return pool;
}

ThreadPool::~ThreadPool() {
  stop_.store(true, std::memory_order_relaxed);
  for (size_t worker = 0; worker < workers_.size(); ++worker) {
    mailboxes_[worker].round.fetch_add(1, std::memory_order_release);
    mailboxes_[worker].round.notify_one();
    workers_[worker].join();
  }
}

void ThreadPool::Run(const Job& job) {
  job_ = job;
  if (job.grain > 0) {
    for (int part = 0; part < job.parts; ++part) {
      shares_[static_cast<size_t>(part)].range.store(
          PackRange(job.BeginOf(part), job.BeginOf(part + 1)), std::memory_order_relaxed);
    }
  }
  running_.store(static_cast<uint32_t>(job.parts - 1), std::memory_order_relaxed);
  for (int part = 1; part < job.parts; ++part) {
    Mailbox& mailbox = mailboxes_[static_cast<size_t>(part - 1)];
    mailbox.round.fetch_add(1, std::memory_order_release);
    mailbox.round.notify_one();
  }
  RunPart(0);
  for (;;) {
    const uint32_t running = running_.load(std::memory_order_acquire);
    if (running == 0) {
      return;
    }
    WaitWhile(running_, running);
  }
}

void ThreadPool::RunPart(int part) {
  if (job_.grain == 0) {
    job_.call(job_.body, job_.BeginOf(part), job_.BeginOf(part + 1), part);
    return;
  }
  int64_t begin = 0;
  int64_t end = 0;
  for (int i = 0; i < job_.parts; ++i) {
    Share& share = shares_[static_cast<size_t>((part + i) % job_.parts)];
    while (TakePiece(share, i == 0, &begin, &end)) {
      job_.call(job_.body, begin, end, part);
    }
  }
}

// False once nothing is left of the share.
bool ThreadPool::TakePiece(Share& share, bool from_front, int64_t* begin,
                           int64_t* end) const {
  constexpr uint64_t kLow = 0xffffffffu;
  uint64_t range = share.range.load(std::memory_order_relaxed);
  for (;;) {
    const auto first = static_cast<int64_t>(range >> 32);
    const auto last = static_cast<int64_t>(range & kLow);
    if (first >= last) {
      return false;
    }
    const int64_t piece =
        std::min(last - first, std::max(job_.grain, (last - first) / 2));
    *begin = from_front ? first : last - piece;
    *end = *begin + piece;
    const uint64_t left = from_front ? PackRange(*end, last) : PackRange(first, *begin);
    if (share.range.compare_exchange_weak(range, left, std::memory_order_relaxed)) {
      return true;
    }
  }
}

void ThreadPool::WorkerLoop(int worker) {
  std::atomic<uint32_t>& round = mailboxes_[static_cast<size_t>(worker)].round;
  for (uint32_t seen = 0;; ++seen) {
    WaitWhile(round, seen);
    if (stop_.load(std::memory_order_relaxed)) {
      return;
    }
    RunPart(worker + 1);
    if (running_.fetch_sub(1, std::memory_order_acq_rel) == 1) {
      running_.notify_one();
    }
  }
}

}  // namespace tessera::kernels::cpu
