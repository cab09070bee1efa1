#include "kernels/runtime/host_arena.h"

#include <utility>

#include "common/status_macros.h"
#include "kernels/runtime/host_runtime.h"

namespace tessera::kernels {
namespace {

constexpr size_t kAlignment = 64;

}  // namespace

absl::StatusOr<DeviceBuffer> HostArena::Allocate(size_t bytes) {
  if (bytes > kRunBytes) {
    return AllocateHost(bytes);
  }
  if (run_ == nullptr || bytes > run_->size_bytes() - used_) {
    TESSERA_ASSIGN_OR_RETURN(DeviceBuffer run, AllocateHost(kRunBytes));
    run_ = std::make_shared<DeviceBuffer>(std::move(run));
    used_ = 0;
  }
  void* const at = static_cast<std::byte*>(run_->data()) + used_;
  // An empty buffer still has an address of its own.
  used_ += (bytes / kAlignment + 1) * kAlignment;
  used_ = used_ < kRunBytes ? used_ : kRunBytes;
  return DeviceBuffer(at, bytes, [run = run_](void*) {});
}

}  // namespace tessera::kernels
