// HostRegistrations: host memory that the devices of a machine read, registered once
// however many ranks of the process read it. A table's pages are pinned for as long as
// somebody holds its registration.
#ifndef TESSERA_KERNELS_CUDA_ENGRAM_ROWS_HOST_REGISTRATIONS_H_
#define TESSERA_KERNELS_CUDA_ENGRAM_ROWS_HOST_REGISTRATIONS_H_

#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <span>
#include <utility>

#include "absl/status/statusor.h"

#include "common/mutex.h"
#include "kernels/cuda/primitives/device.cuh"
#include "kernels/cuda/primitives/device_types.h"

namespace tessera::kernels::cuda {

// Thread-safe. A registration may outlive it. To register a table takes seconds, to
// unregister it waits for the devices: neither is done under a lock, and only whoever
// asks for the very memory waits for it.
class HostRegistrations : public std::enable_shared_from_this<HostRegistrations> {
 public:
  // HostRegisterReadOnly and HostUnregister of a machine; from any thread.
  struct Calls {
    std::function<absl::StatusOr<const void*>(std::span<const std::byte> memory)> add;
    std::function<void(const std::byte* memory)> remove;
  };
  static std::shared_ptr<HostRegistrations> Create(std::shared_ptr<GpuMachine> machine);
  static std::shared_ptr<HostRegistrations> Create(Calls calls);

  // One holder's part of a registration; the last to go unregisters the memory, which
  // waits for the devices.
  class Registration {
   public:
    ~Registration();
    Registration(const Registration&) = delete;
    Registration& operator=(const Registration&) = delete;

    // The same bytes at the devices' address.
    GlobalSpan<const uint8_t> on_device() const { return on_device_; }

   private:
    friend class HostRegistrations;
    Registration(std::shared_ptr<HostRegistrations> owner, const std::byte* memory,
                 GlobalSpan<const uint8_t> on_device)
        : owner_(std::move(owner)), memory_(memory), on_device_(on_device) {}

    const std::shared_ptr<HostRegistrations> owner_;
    const std::byte* const memory_;
    const GlobalSpan<const uint8_t> on_device_;
  };

  // `memory`, not empty, must stay, unchanged, until its registrations are gone. Start-up
  // only: each page is pinned. Errors of HostRegisterReadOnly, for memory that overlaps
  // another registration as well.
  absl::StatusOr<std::unique_ptr<const Registration>> Acquire(
      std::span<const std::byte> memory);

 private:
  struct Entry {
    size_t bytes = 0;
    const void* on_device = nullptr;
    int holders = 0;
    bool is_changing = false;  // somebody registers or unregisters it
  };
  explicit HostRegistrations(Calls calls) : calls_(std::move(calls)) {}
  std::unique_ptr<const Registration> Hold(std::span<const std::byte> memory,
                                           Entry& entry)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void Release(const std::byte* memory);

  const Calls calls_;
  Mutex mutex_;
  std::map<const std::byte*, Entry> entries_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace tessera::kernels::cuda

#endif  // TESSERA_KERNELS_CUDA_ENGRAM_ROWS_HOST_REGISTRATIONS_H_
