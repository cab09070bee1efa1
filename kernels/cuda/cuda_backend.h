// The backends that run the portable ops of cuda_ops.h. `--backend cuda` is the GPU's
// where TESSERA_CUDA=ON, and otherwise the simulated one (backend_registry.cc).
#ifndef TESSERA_KERNELS_CUDA_CUDA_BACKEND_H_
#define TESSERA_KERNELS_CUDA_CUDA_BACKEND_H_

#include <cstdint>
#include <memory>
#include <string_view>

#include "absl/status/statusor.h"

#include "common/clock.h"
#include "kernels/device_limits.h"
#include "kernels/kernel_backend.h"
#include "kernels/local_devices.h"

namespace tessera::kernels {

struct SimulatedCudaOptions {
  uint64_t seed = 1;  // of the simulator's schedule
  // Races, stream dependencies and uninitialised reads as well as bounds and lifetimes;
  // half the speed.
  bool check_order = false;
  // False: Allocate leaves memory as the device gives it, so that with check_order a read
  // of what nobody wrote is found. For tests of ops.
  bool zeroes_memory = true;
  std::string_view numerics = "f32";  // or fp8-g128
};

// `numerics` is f32, the portable ops, or fp8-g128: what fp8_products.h says by the
// tensor cores, in a workspace of the backend, so that one stream at a time may run ops.
//
// Both: one thread uses the backend and its streams; the backend's memory may outlive it.

// On a simulated device (kernels/cuda_sim), correct and slow; what a kernel does wrong is
// an error of the stream. Numerics ids "cuda_sim/f32" and "cuda_sim/fp8-g128": sums have
// the bits of the reference; exp and its like are those of the host's library. Part of
// every build.
absl::StatusOr<std::unique_ptr<KernelBackend>> CreateSimulatedCudaBackend(
    const SimulatedCudaOptions& options);

// The devices of one such machine, a rank on each (machine_devices.h).
absl::StatusOr<std::unique_ptr<LocalDevices>> CreateSimulatedCudaDevices(
    int num_ranks, std::string_view numerics);

// On the first GPU that CUDA_VISIBLE_DEVICES leaves. Numerics ids "cuda/f32" and
// "cuda/fp8-g128", isa the device's properties. kNotFound, "no device: …", where there is
// no GPU; kFailedPrecondition where it cannot run this build's kernels. Defined where
// TESSERA_CUDA=ON alone (library kernels_gpu).
absl::StatusOr<std::unique_ptr<KernelBackend>> CreateGpuBackend(
    std::string_view numerics);
// A GPU for each rank, and NCCL among them; errors as CreateGpuBackend. None, a null
// pointer, where the GPUs are fewer. Defined where TESSERA_NCCL=ON as well.
absl::StatusOr<std::unique_ptr<LocalDevices>> CreateGpuDevices(int num_ranks,
                                                               std::string_view numerics);
// Of the same GPU, with the same errors. Takes 4 GiB of its memory for the time.
absl::StatusOr<DeviceLimits> MeasureGpuLimits(Clock* clock);

}  // namespace tessera::kernels

#endif  // TESSERA_KERNELS_CUDA_CUDA_BACKEND_H_
