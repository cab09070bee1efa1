// ScheduleRandom: the choices of the simulator's scheduler, a pure function of its seed
// (splitmix64). Not for numbers that a model samples with: common/counter_rng.h.
#ifndef TESSERA_KERNELS_CUDA_SIM_SCHEDULE_RANDOM_H_
#define TESSERA_KERNELS_CUDA_SIM_SCHEDULE_RANDOM_H_

#include <cstddef>
#include <cstdint>

namespace tessera::kernels::cuda_sim {

class ScheduleRandom {
 public:
  explicit ScheduleRandom(uint64_t seed) : state_(seed) {}

  // Uniform in [0, n), n >= 1; the bias of at most n / 2^32 does not matter here.
  size_t Below(size_t n) {
    state_ += 0x9e3779b97f4a7c15ULL;
    uint64_t z = state_;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ULL;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebULL;
    return static_cast<size_t>(((z ^ (z >> 31)) >> 32) * n >> 32);
  }

 private:
  uint64_t state_;
};

}  // namespace tessera::kernels::cuda_sim

#endif  // TESSERA_KERNELS_CUDA_SIM_SCHEDULE_RANDOM_H_
