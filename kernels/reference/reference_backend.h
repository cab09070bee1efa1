// The reference backend: each op as plain loops, one thread, float32 or float64. It
// defines what the other backends compute and checks a model against its oracle; it does
// not try to be fast.
#ifndef TESSERA_KERNELS_REFERENCE_REFERENCE_BACKEND_H_
#define TESSERA_KERNELS_REFERENCE_REFERENCE_BACKEND_H_

#include <memory>

#include "absl/status/statusor.h"

#include "kernels/kernel_backend.h"

namespace tessera::kernels {

// Reads `dtype` and `numerics`: kF32 ("reference/f32"), kF64 ("reference/f64"), or kF32
// with numerics fp8-g128 ("reference/fp8-g128", kernels/fp8_products.h); kInvalidArgument
// for anything else. Its ops may run on several streams at once: the backend holds no
// state.
absl::StatusOr<std::unique_ptr<KernelBackend>> CreateReferenceBackend(
    const BackendOptions& options);

}  // namespace tessera::kernels

#endif  // TESSERA_KERNELS_REFERENCE_REFERENCE_BACKEND_H_
