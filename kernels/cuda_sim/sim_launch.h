// Launch under the simulator: copies the kernel's arguments into the stream's queue.
#ifndef TESSERA_KERNELS_CUDA_SIM_SIM_LAUNCH_H_
#define TESSERA_KERNELS_CUDA_SIM_SIM_LAUNCH_H_

#include <type_traits>

#include "kernels/cuda/primitives/device_types.h"
#include "kernels/cuda_sim/sim_stream.h"
#include "kernels/cuda_sim/sim_thread.h"

namespace tessera::kernels::cuda_sim {

// An error stays with the machine: the stream's next Synchronize returns it.
template <typename Kernel>
void Launch(SimStream& stream, const cuda::LaunchConfig& config, const Kernel& kernel) {
  static_assert(std::is_trivially_copyable_v<Kernel>);
  static_assert(sizeof(Kernel) <= 4096, "what a launch can pass");
  static_cast<void>(stream.LaunchKernel(Kernel::kName, config,
                                        [kernel](SimThread& thread) { kernel(thread); }));
}

}  // namespace tessera::kernels::cuda_sim

#endif  // TESSERA_KERNELS_CUDA_SIM_SIM_LAUNCH_H_
