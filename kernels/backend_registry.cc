// CreateBackend: the list of backends of this build, by name; what ranks of one process
// compute on; and what is asked of one backend alone.
#include <string>

#include "absl/status/statusor.h"
#include "fmt/format.h"

#include "common/status.h"
#include "common/status_macros.h"
#include "kernels/cpu/cpu_backend.h"
#include "kernels/cuda/cuda_backend.h"
#include "kernels/device_limits.h"
#include "kernels/kernel_backend.h"
#include "kernels/local_devices.h"
#include "kernels/reference/reference_backend.h"

namespace tessera::kernels {

namespace {

// What a name alone decides.
absl::Status CheckOptions(const BackendOptions& options) {
  if (options.name != "cpu" && options.numerics != "f32" &&
      options.numerics != "fp8-g128") {
    return InvalidArgumentF("{} backend: numerics '{}', expected f32 or fp8-g128",
                            options.name, options.numerics);
  }
  if (options.name == "cuda" && options.dtype != DType::kF32) {
    return InvalidArgumentF("cuda backend: dtype {}, expected {}",
                            model::DTypeName(options.dtype),
                            model::DTypeName(DType::kF32));
  }
  return absl::OkStatus();
}

// Ranks that have nothing of their own but their backends.
class SharedDevices final : public LocalDevices {
 public:
  explicit SharedDevices(const BackendOptions& options)
      : name_(options.name),
        cpu_isa_(options.cpu_isa),
        numerics_(options.numerics),
        options_(options) {
    options_.name = name_;
    options_.cpu_isa = cpu_isa_;
    options_.numerics = numerics_;
  }

  absl::StatusOr<std::unique_ptr<KernelBackend>> CreateBackend(int /*rank*/) override {
    return kernels::CreateBackend(options_);
  }
  bool has_collectives() const override { return false; }
  bool reaches_processes() const override { return false; }
  DeviceIdentity identity(int /*rank*/) const override { return {}; }
  absl::StatusOr<DeviceGroupId> NewGroupId() override { return NoCollectives(); }
  absl::StatusOr<std::unique_ptr<DeviceCollectives>> JoinGroup(
      const DeviceGroupId& /*id*/, int /*size*/, int /*rank*/, int /*local*/) override {
    return NoCollectives();
  }

 private:
  absl::Status NoCollectives() const {
    return absl::UnimplementedError(
        fmt::format("{} backend: no collectives among ranks of one process", name_));
  }

  const std::string name_;
  const std::string cpu_isa_;
  const std::string numerics_;
  BackendOptions options_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<LocalDevices>> CreateLocalDevices(
    const BackendOptions& options, int num_ranks) {
  TESSERA_RETURN_IF_ERROR(CheckOptions(options));
  if (num_ranks < 1 || num_ranks > kMaxLocalRanks) {
    return InvalidArgumentF("{} ranks in one process, expected 1 to {}", num_ranks,
                            kMaxLocalRanks);
  }
  if (options.name == "cuda") {
#ifndef TESSERA_CUDA
    return CreateSimulatedCudaDevices(num_ranks, options.numerics);
#elif defined(TESSERA_NCCL)
    TESSERA_ASSIGN_OR_RETURN(auto devices, CreateGpuDevices(num_ranks, options.numerics));
    if (devices != nullptr) {
      return devices;
    }
#endif
  }
  return std::make_unique<SharedDevices>(options);
}

absl::StatusOr<std::unique_ptr<KernelBackend>> CreateBackend(
    const BackendOptions& options) {
  TESSERA_RETURN_IF_ERROR(CheckOptions(options));
  if (options.name == "reference") {
    return CreateReferenceBackend(options);
  }
  if (options.name == "cuda") {
#ifdef TESSERA_CUDA
    return CreateGpuBackend(options.numerics);
#else
    return CreateSimulatedCudaBackend({.numerics = options.numerics});
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
