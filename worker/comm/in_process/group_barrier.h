// GroupBarrier: where the rank threads of one process meet at the start and at the end of
// a collective. Built on atomics and futexes: a wait costs no core, since up to 16 ranks
// share two.
//
// State: alive -> dead, once. While alive, generations of Enter and Leave alternate.
// Completing an Enter and dying exclude each other (one compare-and-swap decides), so all
// ranks of a generation leave Enter with the same answer. That is what makes it safe to
// touch a peer's buffers between Enter and Leave: whoever got past Enter stays inside its
// call until Leave, death or not. Ordering: what a rank wrote before Enter (Leave) is
// visible to all ranks after it.
#ifndef TESSERA_WORKER_COMM_IN_PROCESS_GROUP_BARRIER_H_
#define TESSERA_WORKER_COMM_IN_PROCESS_GROUP_BARRIER_H_

#include <atomic>
#include <cstdint>
#include <string>
#include <string_view>

#include "absl/time/time.h"

#include "common/clock.h"

namespace tessera::worker {

// Thread-safe. One thread per rank enters and leaves; Kill may come from any thread.
class GroupBarrier {
 public:
  enum class Outcome {
    kMet,      // all ranks came
    kTimeout,  // the deadline passed first; this call has killed the barrier
    kDead,     // it was dead, or died while this rank waited
  };

  // `clock` must outlive the barrier.
  GroupBarrier(int num_ranks, Clock* clock);
  GroupBarrier(const GroupBarrier&) = delete;
  GroupBarrier& operator=(const GroupBarrier&) = delete;

  // Blocks until every rank has entered, the deadline, or death.
  Outcome Enter(absl::Time deadline);

  // Blocks until every rank has left. Not subject to deadline or death: every rank that
  // passed Enter comes here after a bounded amount of copying.
  void Leave();

  // First reason wins. When it returns, every rank that waits or comes later gets kDead.
  void Kill(std::string_view reason);

  bool dead() const;

  // Why it died. Only after dead() or an outcome other than kMet.
  const std::string& reason() const { return reason_; }

 private:
  enum DeathPhase : int { kAlive, kClaimed, kTold };

  // Kills only if generation `state` has not been completed; false if it has.
  bool KillGeneration(uint32_t state, std::string_view reason);
  // Sleeps until `word` differs from `seen`, a wake-up or `limit`, whichever is first.
  void Wait(std::atomic<uint32_t>& word, uint32_t seen, absl::Duration limit);
  bool Spin(const std::atomic<uint32_t>& word, uint32_t seen) const;
  // Publishes the reason once; true for the caller that did.
  bool TellReason(std::string_view reason);

  const uint32_t num_ranks_;
  const int num_spins_;
  Clock* const clock_;

  // Each on a cache line of its own, so that arrivals do not disturb the waiters.
  alignas(64) std::atomic<uint32_t> entered_ = 0;
  // Generation in the upper 31 bits; bit 0 is death.
  alignas(64) std::atomic<uint32_t> enter_state_ = 0;
  alignas(64) std::atomic<uint32_t> left_ = 0;
  alignas(64) std::atomic<uint32_t> leave_generation_ = 0;
  alignas(64) std::atomic<int> death_ = kAlive;
  std::string reason_;  // written once, before death_ becomes kTold
};

}  // namespace tessera::worker

#endif  // TESSERA_WORKER_COMM_IN_PROCESS_GROUP_BARRIER_H_
