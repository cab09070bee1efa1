// The cuda backend: the portable ops of cuda_ops.h on one device. This build has no GPU
// runtime: the device is simulated (kernels/cuda_sim), correct and slow, and what a
// kernel does wrong is an error of the stream. Numerics id "cuda_sim/f32": sums have the
// bits of the reference; exp and its like are those of the host's library.
#ifndef TESSERA_KERNELS_CUDA_CUDA_BACKEND_H_
#define TESSERA_KERNELS_CUDA_CUDA_BACKEND_H_

#include <cstdint>
#include <memory>

#include "absl/status/statusor.h"

#include "kernels/kernel_backend.h"

namespace tessera::kernels {

struct CudaOptions {
  uint64_t seed = 1;  // of the simulator's schedule
  // Races, stream dependencies and uninitialised reads as well as bounds and lifetimes;
  // half the speed.
  bool check_order = false;
  // False: Allocate leaves memory as the device gives it, so that with check_order a read
  // of what nobody wrote is found. For tests of ops.
  bool zeroes_memory = true;
};

// One thread uses the backend and its streams. The backend's memory may outlive it.
absl::StatusOr<std::unique_ptr<KernelBackend>> CreateCudaBackend(
    const CudaOptions& options);

}  // namespace tessera::kernels

#endif  // TESSERA_KERNELS_CUDA_CUDA_BACKEND_H_
