#include <string>
#include <string_view>

#include "common/status_macros.h"
#include "kernels/cuda/cuda_backend.h"
#include "kernels/cuda/devices/machine_devices.h"

namespace tessera::kernels {

absl::StatusOr<std::unique_ptr<LocalDevices>> CreateGpuDevices(
    int num_ranks, std::string_view numerics) {
  TESSERA_ASSIGN_OR_RETURN(auto machine, cuda::CudaMachine::Create());
  if (num_ranks > machine->num_devices()) {
    return std::unique_ptr<LocalDevices>();
  }
  return cuda::CreateMachineDevices(
      machine, [machine, numerics = std::string(numerics)](int device) {
        return cuda::GpuBackendOptions(device, numerics,
                                       machine->properties(device).ToString());
      });
}

}  // namespace tessera::kernels
