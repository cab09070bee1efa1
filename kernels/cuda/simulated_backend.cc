#include <utility>

#include "common/status_macros.h"
#include "kernels/cuda/cuda_backend.h"
#include "kernels/cuda/device_backend.h"

namespace tessera::kernels {

absl::StatusOr<std::unique_ptr<KernelBackend>> CreateSimulatedCudaBackend(
    const SimulatedCudaOptions& options) {
  TESSERA_ASSIGN_OR_RETURN(
      auto machine, cuda_sim::SimMachine::Create(
                        {.seed = options.seed, .check_order = options.check_order}));
  return cuda::CreateDeviceBackend(std::move(machine),
                                   {.numerics_id = "cuda_sim/f32",
                                    .isa = "simulated GPU",
                                    .zeroes_memory = options.zeroes_memory});
}

}  // namespace tessera::kernels
