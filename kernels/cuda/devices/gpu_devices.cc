#include "common/status_macros.h"
#include "kernels/cuda/cuda_backend.h"
#include "kernels/cuda/devices/machine_devices.h"

namespace tessera::kernels {

absl::StatusOr<std::unique_ptr<LocalDevices>> CreateGpuDevices(int num_ranks) {
  TESSERA_ASSIGN_OR_RETURN(auto machine, cuda::CudaMachine::Create());
  if (num_ranks > machine->num_devices()) {
    return std::unique_ptr<LocalDevices>();
  }
  return cuda::CreateMachineDevices(
      machine, [machine](int device) -> cuda::DeviceBackendOptions {
        return {.device = device,
                .numerics_id = "cuda/f32",
                .isa = machine->properties(device).ToString()};
      });
}

}  // namespace tessera::kernels
