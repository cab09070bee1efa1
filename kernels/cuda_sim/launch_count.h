// LaunchCount: how many kernels the host launches, for tests of that number.
#ifndef TESSERA_KERNELS_CUDA_SIM_LAUNCH_COUNT_H_
#define TESSERA_KERNELS_CUDA_SIM_LAUNCH_COUNT_H_

#include <cstdint>

namespace tessera::kernels::cuda_sim {

// Counts what its thread launches while it lives, on streams of any machine, captured or
// not; the launch of a graph is none. Of several on one thread the newest counts, and
// they end in reverse order.
class LaunchCount {
 public:
  LaunchCount();
  ~LaunchCount();
  LaunchCount(const LaunchCount&) = delete;
  LaunchCount& operator=(const LaunchCount&) = delete;

  int64_t launches() const { return launches_; }

 private:
  friend class SimStream;
  // By SimStream::LaunchKernel.
  static void Add();

  LaunchCount* const outer_;
  int64_t launches_ = 0;
};

}  // namespace tessera::kernels::cuda_sim

#endif  // TESSERA_KERNELS_CUDA_SIM_LAUNCH_COUNT_H_
