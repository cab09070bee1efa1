// ScratchArena: the activations of one step. A bump allocator over one buffer that is
// sized at start-up, so that a step allocates nothing; sublayers run one after another
// and reuse it by scopes.
#ifndef TESSERA_WORKER_LAYERS_SCRATCH_ARENA_H_
#define TESSERA_WORKER_LAYERS_SCRATCH_ARENA_H_

#include <cstddef>
#include <cstdint>
#include <initializer_list>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

#include "kernels/kernel_backend.h"
#include "kernels/runtime/device_buffer.h"
#include "kernels/tensor_view.h"

namespace tessera::worker {

// Step thread only. Views are valid until the scope in which they were taken ends.
class ScratchArena {
 public:
  static constexpr size_t kAlignment = 64;

  // kResourceExhausted when the device has too little memory.
  static absl::StatusOr<ScratchArena> Create(kernels::KernelBackend* backend,
                                             size_t bytes);

  // Bytes that a tensor of `count` elements takes, rounded up to the alignment.
  static size_t Bytes(kernels::DType dtype, int64_t count);

  // A contiguous tensor with undefined content. More than was sized for is a bug
  // (checked).
  kernels::TensorView Take(kernels::DType dtype, std::initializer_list<int64_t> dims);

  // Frees everything taken after its construction.
  class Scope {
   public:
    explicit Scope(ScratchArena* arena) : arena_(arena), mark_(arena->used_) {}
    Scope(const Scope&) = delete;
    Scope& operator=(const Scope&) = delete;
    ~Scope() { arena_->used_ = mark_; }

   private:
    ScratchArena* arena_;
    size_t mark_;
  };

  size_t size_bytes() const { return buffer_.size_bytes(); }
  size_t peak_bytes() const { return peak_; }

 private:
  kernels::DeviceBuffer buffer_;
  size_t used_ = 0;
  size_t peak_ = 0;
};

}  // namespace tessera::worker

#endif  // TESSERA_WORKER_LAYERS_SCRATCH_ARENA_H_
