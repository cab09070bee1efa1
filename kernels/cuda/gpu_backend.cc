#include <string>
#include <utility>

#include "common/status_macros.h"
#include "kernels/cuda/cuda_backend.h"
#include "kernels/cuda/device_backend.h"

namespace tessera::kernels {

absl::StatusOr<std::unique_ptr<KernelBackend>> CreateGpuBackend(
    std::string_view numerics) {
  TESSERA_ASSIGN_OR_RETURN(auto machine, cuda::CudaMachine::Create());
  std::string isa = machine->properties(0).ToString();
  return cuda::CreateDeviceBackend(std::move(machine),
                                   cuda::GpuBackendOptions(0, numerics, std::move(isa)));
}

}  // namespace tessera::kernels
