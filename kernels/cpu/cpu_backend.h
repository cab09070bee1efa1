// The cpu backend: threads and SIMD, the instruction set chosen at run time. Weights stay
// in their checkpoint format and are decoded as they are streamed, but for those that
// w8a8-g32 rounds. Numerics ids "cpu/f32", "cpu/int8-g32" and "cpu/w8a8-g32": within each
// the bits are the same at every instruction set, thread count, batch and block size.
#ifndef TESSERA_KERNELS_CPU_CPU_BACKEND_H_
#define TESSERA_KERNELS_CPU_CPU_BACKEND_H_

#include <memory>

#include "absl/status/statusor.h"

#include "kernels/kernel_backend.h"

namespace tessera::kernels {

// Reads `dtype` (kF32 only), `cpu_isa`, `numerics`, `num_threads` and `pin_threads`.
// kInvalidArgument for a value that this machine or backend lacks; kResourceExhausted
// without threads or memory. One stream at a time may run ops.
absl::StatusOr<std::unique_ptr<KernelBackend>> CreateCpuBackend(
    const BackendOptions& options);

}  // namespace tessera::kernels

#endif  // TESSERA_KERNELS_CPU_CPU_BACKEND_H_
