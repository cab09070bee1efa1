// The reference backend: each op as plain loops, one thread, float32 or float64. It
// defines what the other backends compute and checks a model against its oracle; it does
// not try to be fast.
#ifndef TESSERA_KERNELS_REFERENCE_REFERENCE_BACKEND_H_
#define TESSERA_KERNELS_REFERENCE_REFERENCE_BACKEND_H_

#include <memory>

#include "absl/status/statusor.h"

#include "kernels/kernel_backend.h"

namespace tessera::kernels {

// `dtype` is kF32 (numerics "reference/f32") or kF64 ("reference/f64"); kInvalidArgument
// for any other. Its ops may run on several streams at once: the backend holds no state.
absl::StatusOr<std::unique_ptr<KernelBackend>> CreateReferenceBackend(DType dtype);

}  // namespace tessera::kernels

#endif  // TESSERA_KERNELS_REFERENCE_REFERENCE_BACKEND_H_
