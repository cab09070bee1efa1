// FiberRanks: the ranks of a group as fibers of one thread, under a clock of their own.
// A rank runs until it sleeps; of those that may go on a random one does, and once all
// sleep, time jumps to the first that wakes. So a run with deadlines takes no time, and
// is the same for the same seed, whatever else the machine does.
#ifndef TESSERA_TESTS_CONFORMANCE_FIBER_RANKS_H_
#define TESSERA_TESTS_CONFORMANCE_FIBER_RANKS_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <random>
#include <vector>

#include "absl/time/time.h"

#include "common/clock.h"
#include "kernels/cuda_sim/fiber.h"

namespace tessera::testing {

// One thread. Its ranks must not wait for each other by any other means than Sleep.
class FiberRanks final : public Clock {
 public:
  explicit FiberRanks(uint64_t seed) : random_(seed) {}

  // Calls body(rank) on each of the ranks; returns when all have returned.
  void Run(int num_ranks, const std::function<void(int rank)>& body);

  absl::Time Now() override { return now_; }
  // From a rank: the others' turn, also for a duration of zero.
  void Sleep(absl::Duration duration) override;

 private:
  struct Rank {
    std::unique_ptr<kernels::cuda_sim::Fiber> fiber;
    const std::function<void(int)>* body = nullptr;
    int number = 0;
    absl::Time wakes;
    bool is_done = false;
  };

  // One that may go on, after time has come so far; nullptr once all are done.
  Rank* Next();

  std::mt19937_64 random_;
  absl::Time now_ = absl::UnixEpoch();
  std::vector<Rank> ranks_;
  Rank* running_ = nullptr;
};

}  // namespace tessera::testing

#endif  // TESSERA_TESTS_CONFORMANCE_FIBER_RANKS_H_
