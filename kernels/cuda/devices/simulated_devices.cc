#include "kernels/cuda/devices/simulated_devices.h"

#include <string>
#include <string_view>
#include <utility>

#include "fmt/format.h"

#include "common/status_macros.h"
#include "kernels/cuda/cuda_backend.h"
#include "kernels/cuda/device_backend.h"
#include "kernels/cuda/devices/machine_devices.h"

namespace tessera::kernels {
namespace {

using cuda_sim::SimMachine;

// All layouts and chunks of a step are met with little; a chunk is a matter of speed.
constexpr size_t kWorkspaceBytes = size_t{4} << 20;

cuda::DeviceBackendOptions BackendOptionsOf(int device, std::string_view numerics) {
  return {.device = device,
          .numerics_id = fmt::format("cuda_sim/{}", numerics),
          .isa = "simulated GPU",
          .reads_engram_rows = true,
          .fp8_workspace_bytes = numerics == "fp8-g128" ? kWorkspaceBytes : 0};
}

}  // namespace

absl::StatusOr<std::unique_ptr<KernelBackend>> CreateSimulatedCudaBackend(
    const SimulatedCudaOptions& options) {
  TESSERA_ASSIGN_OR_RETURN(
      auto machine,
      SimMachine::Create({.seed = options.seed, .check_order = options.check_order}));
  cuda::DeviceBackendOptions backend = BackendOptionsOf(0, options.numerics);
  backend.zeroes_memory = options.zeroes_memory;
  return cuda::CreateDeviceBackend(std::move(machine), std::move(backend));
}

std::unique_ptr<LocalDevices> CreateSimulatedDevices(std::shared_ptr<SimMachine> machine,
                                                     std::string_view numerics) {
  return cuda::CreateMachineDevices(std::move(machine),
                                    [numerics = std::string(numerics)](int device) {
                                      return BackendOptionsOf(device, numerics);
                                    });
}

absl::StatusOr<std::unique_ptr<LocalDevices>> CreateSimulatedCudaDevices(
    int num_ranks, std::string_view numerics) {
  TESSERA_ASSIGN_OR_RETURN(
      auto machine, SimMachine::Create({.num_devices = num_ranks, .check_order = false}));
  return CreateSimulatedDevices(std::move(machine), numerics);
}

}  // namespace tessera::kernels
