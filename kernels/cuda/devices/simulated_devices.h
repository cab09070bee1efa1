// The devices of a simulated machine as those of a group's ranks (machine_devices.h). A
// rank that touches another's memory is found, as is what ops or collectives do wrong.
#ifndef TESSERA_KERNELS_CUDA_DEVICES_SIMULATED_DEVICES_H_
#define TESSERA_KERNELS_CUDA_DEVICES_SIMULATED_DEVICES_H_

#include <memory>
#include <string_view>

#include "kernels/cuda_sim/sim_machine.h"
#include "kernels/local_devices.h"

namespace tessera::kernels {

// For whoever asks `machine` for its findings; others use CreateSimulatedCudaDevices.
std::unique_ptr<LocalDevices> CreateSimulatedDevices(
    std::shared_ptr<cuda_sim::SimMachine> machine, std::string_view numerics = "f32");

}  // namespace tessera::kernels

#endif  // TESSERA_KERNELS_CUDA_DEVICES_SIMULATED_DEVICES_H_
