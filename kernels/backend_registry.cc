// CreateBackend: the list of backends of this build, by name.
#include "absl/status/statusor.h"
#include "fmt/format.h"

#include "common/status.h"
#include "kernels/cpu/cpu_backend.h"
#include "kernels/kernel_backend.h"
#include "kernels/reference/reference_backend.h"

namespace tessera::kernels {

absl::StatusOr<std::unique_ptr<KernelBackend>> CreateBackend(
    const BackendOptions& options) {
  if (options.name == "reference") {
    if (options.numerics != "f32") {
      return absl::InvalidArgumentError(fmt::format(
          "reference backend: numerics '{}', expected f32", options.numerics));
    }
    return CreateReferenceBackend(options.dtype);
  }
  if (options.name == "cpu") {
    return CreateCpuBackend(options);
  }
  return absl::InvalidArgumentError(
      fmt::format("backend '{}', expected reference or cpu", options.name));
}

}  // namespace tessera::kernels
