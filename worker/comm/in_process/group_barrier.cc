#include "worker/comm/in_process/group_barrier.h"

#include <algorithm>
#include <climits>
#include <ctime>
#include <thread>

#include <linux/futex.h>
#include <sys/syscall.h>
#include <unistd.h>

namespace tessera::worker {
namespace {

constexpr uint32_t kDeadBit = 1;
constexpr uint32_t kOneGeneration = 2;

// A futex wait is cut into slices so that a deadline of a simulated clock is noticed as
// well. A wake-up ends a slice at once; the slice only bounds how late a deadline can be
// seen.
constexpr absl::Duration kWaitSlice = absl::Milliseconds(20);

// About 2 us of polling before the thread gives its core away: the length of a short
// collective, and well below the ~5 us that a futex sleep and wake-up cost.
constexpr int kSpins = 100;

void CpuRelax() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#endif
}

void FutexWakeAll(std::atomic<uint32_t>& word) {
  syscall(SYS_futex, reinterpret_cast<uint32_t*>(&word), FUTEX_WAKE_PRIVATE, INT_MAX,
          nullptr, nullptr, 0);
}

}  // namespace

// Spinning pays only while every rank can have a core of its own.
GroupBarrier::GroupBarrier(int num_ranks, Clock* clock)
    : num_ranks_(static_cast<uint32_t>(num_ranks)),
      num_spins_(static_cast<unsigned>(num_ranks) <= std::thread::hardware_concurrency()
                     ? kSpins
                     : 0),
      clock_(clock) {}

bool GroupBarrier::Spin(const std::atomic<uint32_t>& word, uint32_t seen) const {
  for (int i = 0; i < num_spins_; ++i) {
    if (word.load(std::memory_order_acquire) != seen) {
      return true;
    }
    CpuRelax();
  }
  return word.load(std::memory_order_acquire) != seen;
}

void GroupBarrier::Wait(std::atomic<uint32_t>& word, uint32_t seen,
                        absl::Duration limit) {
  const timespec timeout =
      absl::ToTimespec(std::clamp(limit, absl::Microseconds(1), kWaitSlice));
  syscall(SYS_futex, reinterpret_cast<uint32_t*>(&word), FUTEX_WAIT_PRIVATE, seen,
          &timeout, nullptr, 0);
}

GroupBarrier::Outcome GroupBarrier::Enter(absl::Time deadline) {
  const uint32_t seen = enter_state_.load(std::memory_order_acquire);
  if ((seen & kDeadBit) != 0) {
    return Outcome::kDead;
  }
  if (entered_.fetch_add(1, std::memory_order_acq_rel) + 1 == num_ranks_) {
    entered_.store(0, std::memory_order_relaxed);
    uint32_t expected = seen;
    if (!enter_state_.compare_exchange_strong(expected, seen + kOneGeneration,
                                              std::memory_order_acq_rel)) {
      return Outcome::kDead;
    }
    FutexWakeAll(enter_state_);
    return Outcome::kMet;
  }
  Spin(enter_state_, seen);
  while (true) {
    const uint32_t now = enter_state_.load(std::memory_order_acquire);
    if ((now & ~kDeadBit) != seen) {
      return Outcome::kMet;
    }
    if (now != seen) {
      return Outcome::kDead;
    }
    const absl::Duration left = deadline - clock_->Now();
    if (left <= absl::ZeroDuration()) {
      if (KillGeneration(seen, "deadline exceeded in a collective")) {
        return Outcome::kTimeout;
      }
      continue;
    }
    Wait(enter_state_, seen, left);
  }
}

void GroupBarrier::Leave() {
  const uint32_t seen = leave_generation_.load(std::memory_order_acquire);
  if (left_.fetch_add(1, std::memory_order_acq_rel) + 1 == num_ranks_) {
    left_.store(0, std::memory_order_relaxed);
    leave_generation_.store(seen + 1, std::memory_order_release);
    FutexWakeAll(leave_generation_);
    return;
  }
  Spin(leave_generation_, seen);
  while (leave_generation_.load(std::memory_order_acquire) == seen) {
    Wait(leave_generation_, seen, kWaitSlice);
  }
}

bool GroupBarrier::TellReason(std::string_view reason) {
  int expected = kAlive;
  if (!death_.compare_exchange_strong(expected, kClaimed, std::memory_order_acq_rel)) {
    // Another thread is copying its reason: a few instructions.
    while (death_.load(std::memory_order_acquire) != kTold) {
      std::this_thread::yield();
    }
    return false;
  }
  reason_.assign(reason);
  death_.store(kTold, std::memory_order_release);
  return true;
}

bool GroupBarrier::KillGeneration(uint32_t state, std::string_view reason) {
  // The reason goes first: whoever sees the dead bit may read it. If the last rank comes
  // in between, this generation completes and the group dies with the next call.
  const bool first = TellReason(reason);
  uint32_t expected = state;
  const bool killed = enter_state_.compare_exchange_strong(expected, state | kDeadBit,
                                                           std::memory_order_acq_rel);
  if (!killed) {
    enter_state_.fetch_or(kDeadBit, std::memory_order_acq_rel);
  }
  FutexWakeAll(enter_state_);
  return killed && first;
}

void GroupBarrier::Kill(std::string_view reason) {
  TellReason(reason);
  enter_state_.fetch_or(kDeadBit, std::memory_order_acq_rel);
  FutexWakeAll(enter_state_);
}

bool GroupBarrier::dead() const {
  return (enter_state_.load(std::memory_order_acquire) & kDeadBit) != 0;
}

}  // namespace tessera::worker
