#include <string>
#include <utility>

#include "common/status_macros.h"
#include "kernels/cuda/cuda_backend.h"
#include "kernels/cuda/device_backend.h"

namespace tessera::kernels {

absl::StatusOr<std::unique_ptr<KernelBackend>> CreateGpuBackend() {
  TESSERA_ASSIGN_OR_RETURN(auto machine, cuda::CudaMachine::Create());
  std::string isa = machine->properties(0).ToString();
  return cuda::CreateDeviceBackend(std::move(machine),
                                   {.numerics_id = "cuda/f32", .isa = std::move(isa)});
}

}  // namespace tessera::kernels
