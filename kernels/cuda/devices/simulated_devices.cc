#include "kernels/cuda/devices/simulated_devices.h"

#include <utility>

#include "common/status_macros.h"
#include "kernels/cuda/cuda_backend.h"
#include "kernels/cuda/device_backend.h"
#include "kernels/cuda/devices/machine_devices.h"

namespace tessera::kernels {
namespace {

using cuda_sim::SimMachine;

cuda::DeviceBackendOptions BackendOptionsOf(int device) {
  return {.device = device,
          .numerics_id = "cuda_sim/f32",
          .isa = "simulated GPU",
          .reads_engram_rows = true};
}

}  // namespace

absl::StatusOr<std::unique_ptr<KernelBackend>> CreateSimulatedCudaBackend(
    const SimulatedCudaOptions& options) {
  TESSERA_ASSIGN_OR_RETURN(
      auto machine,
      SimMachine::Create({.seed = options.seed, .check_order = options.check_order}));
  cuda::DeviceBackendOptions backend = BackendOptionsOf(0);
  backend.zeroes_memory = options.zeroes_memory;
  return cuda::CreateDeviceBackend(std::move(machine), std::move(backend));
}

std::unique_ptr<LocalDevices> CreateSimulatedDevices(
    std::shared_ptr<SimMachine> machine) {
  return cuda::CreateMachineDevices(std::move(machine), BackendOptionsOf);
}

absl::StatusOr<std::unique_ptr<LocalDevices>> CreateSimulatedCudaDevices(int num_ranks) {
  TESSERA_ASSIGN_OR_RETURN(
      auto machine, SimMachine::Create({.num_devices = num_ranks, .check_order = false}));
  return CreateSimulatedDevices(std::move(machine));
}

}  // namespace tessera::kernels
