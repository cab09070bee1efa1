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
  bool reaches_processes() const override { return GpuNcclComm::kReachesProcesses; }
  DeviceIdentity identity(int rank) const override { return machine_->uuid(rank); }
  absl::StatusOr<DeviceGroupId> NewGroupId() override {
    return GpuNcclComm::GetUniqueId(machine_).bytes();
  }
  absl::StatusOr<std::unique_ptr<DeviceCollectives>> JoinGroup(const DeviceGroupId& id,
                                                               int size, int rank,
                                                               int local) override {
    TESSERA_ASSIGN_OR_RETURN(const GpuNcclId made, GpuNcclId::Of(machine_, id));
    return CreateNcclCollectives(machine_, made, size, rank, local);
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
