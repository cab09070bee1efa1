// CreateBackend: the list of backends of this build, by name; and what is asked of one of
// them alone.
#include "absl/status/statusor.h"
#include "fmt/format.h"

#include "common/status.h"
#include "kernels/cpu/cpu_backend.h"
#include "kernels/cuda/cuda_backend.h"
#include "kernels/device_limits.h"
#include "kernels/kernel_backend.h"
#include "kernels/reference/reference_backend.h"

namespace tessera::kernels {

absl::StatusOr<std::unique_ptr<KernelBackend>> CreateBackend(
    const BackendOptions& options) {
  if (options.name != "cpu" && options.numerics != "f32") {
    return absl::InvalidArgumentError(fmt::format(
        "{} backend: numerics '{}', expected f32", options.name, options.numerics));
  }
  if (options.name == "reference") {
    return CreateReferenceBackend(options.dtype);
  }
  if (options.name == "cuda") {
    if (options.dtype != DType::kF32) {
      return absl::InvalidArgumentError(fmt::format("cuda backend: dtype {}, expected {}",
                                                    model::DTypeName(options.dtype),
                                                    model::DTypeName(DType::kF32)));
    }
#ifdef TESSERA_CUDA
    return CreateGpuBackend();
#else
    return CreateSimulatedCudaBackend({});
#endif
  }
  if (options.name == "cpu") {
    return CreateCpuBackend(options);
  }
  return absl::InvalidArgumentError(
      fmt::format("backend '{}', expected reference, cpu or cuda", options.name));
}

absl::StatusOr<DeviceLimits> MeasureDeviceLimits(std::string_view backend,
                                                 [[maybe_unused]] Clock* clock) {
#ifdef TESSERA_CUDA
  if (backend == "cuda") {
    return MeasureGpuLimits(clock);
  }
#endif
  return absl::UnimplementedError(
      fmt::format("limits of backend '{}', which is no GPU", backend));
}

}  // namespace tessera::kernels
