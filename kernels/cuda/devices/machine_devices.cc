#include "kernels/cuda/devices/machine_devices.h"

#include <utility>

#include "common/status_macros.h"
#include "kernels/cuda/devices/device_nccl.h"
#include "kernels/cuda/devices/nccl_collectives.h"

namespace tessera::kernels::cuda {
namespace {

class MachineDevices final : public LocalDevices {
 public:
  MachineDevices(std::shared_ptr<GpuMachine> machine,
                 std::function<DeviceBackendOptions(int)> options)
      : machine_(std::move(machine)),
        registrations_(HostRegistrations::Create(machine_)),
        options_(std::move(options)) {}

  absl::StatusOr<std::unique_ptr<KernelBackend>> CreateBackend(int rank) override {
    DeviceBackendOptions options = options_(rank);
    options.registrations = registrations_;
    return CreateDeviceBackend(machine_, std::move(options));
  }

  bool has_collectives() const override { return true; }
  absl::StatusOr<std::vector<std::unique_ptr<DeviceCollectives>>> Connect(
      std::span<const int> ranks) override {
    const GpuNcclId id = GpuNcclComm::GetUniqueId(machine_);
    const int size = static_cast<int>(ranks.size());
    std::vector<std::unique_ptr<DeviceCollectives>> group;
    for (const int device : ranks) {
      TESSERA_ASSIGN_OR_RETURN(
          auto rank, CreateNcclCollectives(machine_, id, size,
                                           static_cast<int>(group.size()), device));
      group.push_back(std::move(rank));
    }
    return group;
  }

 private:
  const std::shared_ptr<GpuMachine> machine_;
  const std::shared_ptr<HostRegistrations> registrations_;  // of all ranks' tables
  const std::function<DeviceBackendOptions(int)> options_;
};

}  // namespace

std::unique_ptr<LocalDevices> CreateMachineDevices(
    std::shared_ptr<GpuMachine> machine,
    std::function<DeviceBackendOptions(int device)> options) {
  return std::make_unique<MachineDevices>(std::move(machine), std::move(options));
}

}  // namespace tessera::kernels::cuda
