// SyncClock: what an agent of a block knows to have happened, as one number for each
// agent. Agents are the block's threads, the tensor-core work of each of its warps, and
// the copies that complete on each of its barriers (async_units.h).
#ifndef TESSERA_KERNELS_CUDA_SIM_SYNC_CLOCK_H_
#define TESSERA_KERNELS_CUDA_SIM_SYNC_CLOCK_H_

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <vector>

namespace tessera::kernels::cuda_sim {

// A moment of an agent: what it does until it next lets others know.
struct Moment {
  uint32_t agent = 0;
  uint32_t tick = 0;  // 0: never
};

class SyncClock {
 public:
  bool Covers(const Moment& moment) const { return Of(moment.agent) >= moment.tick; }
  uint32_t Of(uint32_t agent) const { return agent < ticks_.size() ? ticks_[agent] : 0; }
  void Set(uint32_t agent, uint32_t tick) {
    if (agent >= ticks_.size()) {
      ticks_.resize(agent + 1);
    }
    ticks_[agent] = tick;
  }
  // What either knows.
  void Join(const SyncClock& other) {
    ticks_.resize(std::max(ticks_.size(), other.ticks_.size()));
    for (size_t i = 0; i < other.ticks_.size(); ++i) {
      ticks_[i] = std::max(ticks_[i], other.ticks_[i]);
    }
  }
  // What both know.
  void Meet(const SyncClock& other) {
    ticks_.resize(std::min(ticks_.size(), other.ticks_.size()));
    for (size_t i = 0; i < ticks_.size(); ++i) {
      ticks_[i] = std::min(ticks_[i], other.ticks_[i]);
    }
  }

 private:
  std::vector<uint32_t> ticks_;
};

}  // namespace tessera::kernels::cuda_sim

#endif  // TESSERA_KERNELS_CUDA_SIM_SYNC_CLOCK_H_
