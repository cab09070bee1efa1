// DeviceMemory: every allocation of a simulated machine, of all devices and of pinned
// host memory: where it lies, whether it is live at this point of its stream, and its
// shadow. A freed allocation keeps its addresses in a bounded quarantine, so that a use
// after the free is seen, and named.
#ifndef TESSERA_KERNELS_CUDA_SIM_DEVICE_MEMORY_H_
#define TESSERA_KERNELS_CUDA_SIM_DEVICE_MEMORY_H_

#include <cstddef>
#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

#include "kernels/cuda_sim/shadow.h"

namespace tessera::kernels::cuda_sim {

inline constexpr int kHostMemory = -1;

enum class AllocationState {
  kReserved,  // asked for on a stream that did not come so far
  kLive,
  kFreed,
};

struct Allocation {
  uint64_t id = 0;  // by which messages name it: addresses differ from run to run
  std::byte* data = nullptr;
  size_t bytes = 0;
  int device = kHostMemory;
  bool owned = true;       // false: host memory that was registered
  bool read_only = false;  // registered for reads alone
  AllocationState state = AllocationState::kLive;
  OpId allocated_by;           // number 0: by the host
  std::vector<uint64_t> uses;  // by stream: the last operation that used it
  ShadowPages shadow{0};

  bool Contains(const void* address) const {
    const auto* at = static_cast<const std::byte*>(address);
    return at >= data && at < data + bytes;
  }
  void NoteUse(const OpId& op) {
    if (op.stream >= uses.size()) {
      uses.resize(size_t{op.stream} + 1);
    }
    uses[op.stream] = op.number;
  }
};

// External synchronisation. Pointers to allocations stay valid until they leave the
// quarantine, which only Free and MarkFreed cause.
class DeviceMemory {
 public:
  struct Limits {
    size_t device_bytes = size_t{4} << 30;       // of one device
    size_t quarantine_bytes = size_t{64} << 20;  // of freed memory that is kept
  };
  explicit DeviceMemory(const Limits& limits) : limits_(limits) {}
  ~DeviceMemory();
  DeviceMemory(const DeviceMemory&) = delete;
  DeviceMemory& operator=(const DeviceMemory&) = delete;

  // Aligned to 256 bytes, filled with a pattern. kResourceExhausted beyond the limit.
  absl::StatusOr<Allocation*> Allocate(int device, size_t bytes, AllocationState state);
  // Host memory of the caller that the devices may use as it stands, or only read.
  // kFailedPrecondition if it overlaps an allocation.
  absl::StatusOr<Allocation*> Register(const void* data, size_t bytes, bool read_only);
  // The allocation that holds `address`, live or not; nullptr if none does.
  Allocation* Find(const void* address);
  // The allocation that begins there and was not freed, or nullptr.
  Allocation* FindUnfreed(const void* begin);
  // From live to freed; what is registered is only remembered as such.
  void MarkFreed(Allocation* allocation);
  // Whether `address`, which no allocation holds, was registered and is so no more; of
  // the last kMaxUnregistered such ranges.
  bool WasRegistered(const void* address) const;

 private:
  static constexpr size_t kMaxUnregistered = 64;
  struct Range {
    const std::byte* begin = nullptr;
    const std::byte* end = nullptr;
  };
  void Release(Allocation* allocation);

  const Limits limits_;
  uint64_t next_id_ = 1;
  std::map<const std::byte*, std::unique_ptr<Allocation>> by_address_;
  std::deque<Allocation*> quarantine_;
  size_t quarantined_bytes_ = 0;
  std::map<int, size_t> used_bytes_;
  std::deque<Range> unregistered_;
};

}  // namespace tessera::kernels::cuda_sim

#endif  // TESSERA_KERNELS_CUDA_SIM_DEVICE_MEMORY_H_
