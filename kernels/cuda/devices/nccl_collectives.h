// The devices of a machine as ranks of a group: DeviceCollectives over streams, events
// and NCCL of GPUs, or of their twins in kernels/cuda_sim. Compiled twice, as
// device_backend.h is.
#ifndef TESSERA_KERNELS_CUDA_DEVICES_NCCL_COLLECTIVES_H_
#define TESSERA_KERNELS_CUDA_DEVICES_NCCL_COLLECTIVES_H_

#include <memory>

#include "absl/status/statusor.h"

#include "kernels/cuda/devices/device_nccl.h"
#include "kernels/cuda/primitives/device.cuh"
#include "kernels/runtime/device_collectives.h"

namespace tessera::kernels::cuda {

// Rank `rank` of `size` on `device`; its group is formed once all ranks of `id` exist,
// which Poll tells. kInvalidArgument: no such rank or device, or one that is taken.
absl::StatusOr<std::unique_ptr<DeviceCollectives>> CreateNcclCollectives(
    std::shared_ptr<GpuMachine> machine, const GpuNcclId& id, int size, int rank,
    int device);

}  // namespace tessera::kernels::cuda

#endif  // TESSERA_KERNELS_CUDA_DEVICES_NCCL_COLLECTIVES_H_
