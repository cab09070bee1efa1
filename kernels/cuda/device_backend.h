// The ops of cuda_ops.h as a KernelBackend on one device of a machine. Compiled twice, as
// the ops are: for simulated machines and, with TESSERA_CUDA=ON, for GPUs.
// cuda_backend.h says which backends there are.
#ifndef TESSERA_KERNELS_CUDA_DEVICE_BACKEND_H_
#define TESSERA_KERNELS_CUDA_DEVICE_BACKEND_H_

#include <cstddef>
#include <memory>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"

#include "kernels/cuda/engram_rows/host_registrations.h"
#include "kernels/cuda/primitives/device.cuh"
#include "kernels/kernel_backend.h"

namespace tessera::kernels::cuda {

struct DeviceBackendOptions {
  int device = 0;
  std::string numerics_id;
  std::string isa;
  // False: Allocate leaves memory as the device gives it.
  bool zeroes_memory = true;
  // Engram rows by the device's own reader (engram_rows/device_engram_reader.h), where
  // its streams can wait for flags; otherwise the host gathers and uploads them.
  bool reads_engram_rows = false;
  // Of the tables that backends of one machine share; null: its own.
  std::shared_ptr<HostRegistrations> registrations = nullptr;
  // Of numerics fp8-g128 (fp8_ops.h); 0: f32.
  size_t fp8_workspace_bytes = 0;
};

// Those of a GPU's backend with these numerics, f32 or fp8-g128.
DeviceBackendOptions GpuBackendOptions(int device, std::string_view numerics,
                                       std::string isa);

// One thread uses the backend and its streams. The backend's memory may outlive it.
// Errors are those of a stream's creation.
absl::StatusOr<std::unique_ptr<KernelBackend>> CreateDeviceBackend(
    std::shared_ptr<GpuMachine> machine, DeviceBackendOptions options);

}  // namespace tessera::kernels::cuda

#endif  // TESSERA_KERNELS_CUDA_DEVICE_BACKEND_H_
