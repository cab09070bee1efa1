#include "kernels/cuda/simulated_devices.h"

#include <utility>

#include "common/status_macros.h"
#include "kernels/cuda/cuda_backend.h"
#include "kernels/cuda/device_backend.h"
#include "kernels/cuda/simulated_collectives.h"
#include "kernels/cuda_sim/sim_nccl.h"

namespace tessera::kernels {
namespace {

using cuda_sim::SimMachine;
using cuda_sim::SimNcclComm;
using cuda_sim::SimNcclId;

cuda::DeviceBackendOptions BackendOptionsOf(int device) {
  return {.device = device, .numerics_id = "cuda_sim/f32", .isa = "simulated GPU"};
}

class SimulatedDevices final : public LocalDevices {
 public:
  explicit SimulatedDevices(std::shared_ptr<SimMachine> machine)
      : machine_(std::move(machine)) {}

  absl::StatusOr<std::unique_ptr<KernelBackend>> CreateBackend(int rank) override {
    return cuda::CreateDeviceBackend(machine_, BackendOptionsOf(rank));
  }

  bool has_collectives() const override { return true; }
  absl::StatusOr<std::vector<std::unique_ptr<DeviceCollectives>>> Connect(
      std::span<const int> ranks) override {
    const SimNcclId id = SimNcclComm::GetUniqueId(machine_);
    const int size = static_cast<int>(ranks.size());
    std::vector<std::unique_ptr<DeviceCollectives>> group;
    for (const int device : ranks) {
      TESSERA_ASSIGN_OR_RETURN(
          auto rank, cuda::CreateSimulatedCollectives(
                         machine_, id, size, static_cast<int>(group.size()), device));
      group.push_back(std::move(rank));
    }
    return group;
  }

 private:
  const std::shared_ptr<SimMachine> machine_;
};

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
  return std::make_unique<SimulatedDevices>(std::move(machine));
}

absl::StatusOr<std::unique_ptr<LocalDevices>> CreateSimulatedCudaDevices(int num_ranks) {
  TESSERA_ASSIGN_OR_RETURN(
      auto machine, SimMachine::Create({.num_devices = num_ranks, .check_order = false}));
  return CreateSimulatedDevices(std::move(machine));
}

}  // namespace tessera::kernels
