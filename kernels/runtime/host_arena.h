// HostArena: buffers cut from large runs of memory. A buffer of a few MiB of its own ends
// in small pages, where reads wait for translations and the processor's prefetching stops
// at each 4 KiB; behind each other in one run, all lie in huge pages.
#ifndef TESSERA_KERNELS_RUNTIME_HOST_ARENA_H_
#define TESSERA_KERNELS_RUNTIME_HOST_ARENA_H_

#include <cstddef>
#include <memory>

#include "absl/status/statusor.h"

#include "kernels/runtime/device_buffer.h"

namespace tessera::kernels {

// One thread at a time. Buffers may outlive it. A run is given back with the last of its
// buffers: for what is allocated together and lives as long.
class HostArena {
 public:
  // Larger buffers get a run of their own.
  static constexpr size_t kRunBytes = size_t{64} << 20;

  // Zeroed, 64-byte aligned. kResourceExhausted as AllocateHost.
  absl::StatusOr<DeviceBuffer> Allocate(size_t bytes);

 private:
  std::shared_ptr<DeviceBuffer> run_;  // the current one
  size_t used_ = 0;                    // of it
};

}  // namespace tessera::kernels

#endif  // TESSERA_KERNELS_RUNTIME_HOST_ARENA_H_
