// The devices of a simulated machine as ranks of a group: DeviceCollectives over the
// twins of streams, events and NCCL in kernels/cuda_sim.
#ifndef TESSERA_KERNELS_CUDA_SIMULATED_COLLECTIVES_H_
#define TESSERA_KERNELS_CUDA_SIMULATED_COLLECTIVES_H_

#include <memory>

#include "absl/status/statusor.h"

#include "kernels/cuda_sim/sim_machine.h"
#include "kernels/cuda_sim/sim_nccl.h"
#include "kernels/runtime/device_collectives.h"

namespace tessera::kernels::cuda {

// Rank `rank` of `size` on `device`; its group is formed once all ranks of `id` exist,
// which Poll tells. kInvalidArgument: no such rank or device, or one that is taken.
absl::StatusOr<std::unique_ptr<DeviceCollectives>> CreateSimulatedCollectives(
    std::shared_ptr<cuda_sim::SimMachine> machine, const cuda_sim::SimNcclId& id,
    int size, int rank, int device);

}  // namespace tessera::kernels::cuda

#endif  // TESSERA_KERNELS_CUDA_SIMULATED_COLLECTIVES_H_
