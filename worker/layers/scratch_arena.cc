#include "worker/layers/scratch_arena.h"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <initializer_list>

#include "absl/status/statusor.h"

#include "common/check.h"
#include "common/status_macros.h"
#include "kernels/kernel_backend.h"
#include "kernels/tensor_view.h"
#include "model/formats/dtype.h"

namespace tessera::worker {

absl::StatusOr<ScratchArena> ScratchArena::Create(kernels::KernelBackend* backend,
                                                  size_t bytes) {
  ScratchArena arena;
  TESSERA_ASSIGN_OR_RETURN(arena.buffer_, backend->Allocate(bytes));
  return arena;
}

size_t ScratchArena::Bytes(kernels::DType dtype, int64_t count) {
  const size_t bytes = model::DTypeBytes(dtype, static_cast<size_t>(count));
  return (bytes + kAlignment - 1) / kAlignment * kAlignment;
}

kernels::TensorView ScratchArena::Take(kernels::DType dtype,
                                       std::initializer_list<int64_t> dims) {
  kernels::TensorView view(static_cast<std::byte*>(buffer_.data()) + used_, dtype, dims);
  used_ += Bytes(dtype, view.num_elements());
  peak_ = std::max(peak_, used_);
  TESSERA_CHECK_LE(used_, buffer_.size_bytes());
  return view;
}

}  // namespace tessera::worker
