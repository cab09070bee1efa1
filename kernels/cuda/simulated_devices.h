// The devices of a simulated machine as those of a group's ranks: rank r has device r,
// for its ops (device_backend.h) and its collectives (simulated_collectives.h) alike. A
// rank that touches another's memory is found, as is what either of the two does wrong.
#ifndef TESSERA_KERNELS_CUDA_SIMULATED_DEVICES_H_
#define TESSERA_KERNELS_CUDA_SIMULATED_DEVICES_H_

#include <memory>

#include "kernels/cuda_sim/sim_machine.h"
#include "kernels/local_devices.h"

namespace tessera::kernels {

// For whoever asks `machine` for its findings; others use CreateSimulatedCudaDevices.
std::unique_ptr<LocalDevices> CreateSimulatedDevices(
    std::shared_ptr<cuda_sim::SimMachine> machine);

}  // namespace tessera::kernels

#endif  // TESSERA_KERNELS_CUDA_SIMULATED_DEVICES_H_
