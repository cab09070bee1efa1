// The devices of a machine as those of a group's ranks: rank r has device r, for its ops
// (device_backend.h) and its collectives (nccl_collectives.h) alike. Compiled twice, as
// both are.
#ifndef TESSERA_KERNELS_CUDA_DEVICES_MACHINE_DEVICES_H_
#define TESSERA_KERNELS_CUDA_DEVICES_MACHINE_DEVICES_H_

#include <functional>
#include <memory>

#include "kernels/cuda/device_backend.h"
#include "kernels/cuda/primitives/device.cuh"
#include "kernels/local_devices.h"

namespace tessera::kernels::cuda {

// `options`: of the backend on a device.
std::unique_ptr<LocalDevices> CreateMachineDevices(
    std::shared_ptr<GpuMachine> machine,
    std::function<DeviceBackendOptions(int device)> options);

}  // namespace tessera::kernels::cuda

#endif  // TESSERA_KERNELS_CUDA_DEVICES_MACHINE_DEVICES_H_
