#include "kernels/cuda/engram_rows/host_registrations.h"

#include "common/check.h"
#include "common/status_macros.h"

namespace tessera::kernels::cuda {

std::shared_ptr<HostRegistrations> HostRegistrations::Create(
    std::shared_ptr<GpuMachine> machine) {
  return std::shared_ptr<HostRegistrations>(new HostRegistrations(std::move(machine)));
}

absl::StatusOr<std::unique_ptr<const HostRegistrations::Registration>>
HostRegistrations::Acquire(std::span<const std::byte> memory) {
  TESSERA_CHECK(!memory.empty());
  MutexLock lock(&mutex_);
  auto found = entries_.find(memory.data());
  if (found == entries_.end() || found->second.bytes != memory.size()) {
    // Part of another one, or of another size: the machine refuses it.
    TESSERA_ASSIGN_OR_RETURN(
        const void* const on_device,
        machine_->HostRegisterReadOnly(memory.data(), memory.size()));
    found = entries_.insert({memory.data(), {memory.size(), on_device, 0}}).first;
  }
  ++found->second.holders;
  return std::unique_ptr<const Registration>(
      new Registration(shared_from_this(), memory.data(),
                       {static_cast<const uint8_t*>(found->second.on_device),
                        static_cast<int64_t>(memory.size())}));
}

void HostRegistrations::Release(const std::byte* memory) {
  MutexLock lock(&mutex_);
  const auto found = entries_.find(memory);
  TESSERA_CHECK(found != entries_.end());
  if (--found->second.holders == 0) {
    // A failure is one of the device's, which its next call tells.
    static_cast<void>(machine_->HostUnregister(memory));
    entries_.erase(found);
  }
}

HostRegistrations::Registration::~Registration() { owner_->Release(memory_); }

}  // namespace tessera::kernels::cuda
