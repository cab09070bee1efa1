#include "kernels/cuda/engram_rows/host_registrations.h"

#include "absl/status/status.h"

#include "common/check.h"
#include "common/status.h"
#include "common/status_macros.h"

namespace tessera::kernels::cuda {

std::shared_ptr<HostRegistrations> HostRegistrations::Create(
    std::shared_ptr<GpuMachine> machine) {
  return Create({.add =
                     [machine](std::span<const std::byte> memory) {
                       return machine->HostRegisterReadOnly(memory.data(), memory.size());
                     },
                 .remove =
                     [machine](const std::byte* memory) {
                       // A failure is one of the device's, which its next call tells.
                       static_cast<void>(machine->HostUnregister(memory));
                     }});
}

std::shared_ptr<HostRegistrations> HostRegistrations::Create(Calls calls) {
  return std::shared_ptr<HostRegistrations>(new HostRegistrations(std::move(calls)));
}

std::unique_ptr<const HostRegistrations::Registration> HostRegistrations::Hold(
    std::span<const std::byte> memory, Entry& entry) {
  ++entry.holders;
  return std::unique_ptr<const Registration>(new Registration(
      shared_from_this(), memory.data(),
      {static_cast<const uint8_t*>(entry.on_device), std::ssize(memory)}));
}

absl::StatusOr<std::unique_ptr<const HostRegistrations::Registration>>
HostRegistrations::Acquire(std::span<const std::byte> memory) {
  TESSERA_CHECK(!memory.empty());
  {
    MutexLock lock(&mutex_);
    const auto is_settled = [&]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
      const auto at = entries_.find(memory.data());
      return at == entries_.end() || !at->second.is_changing;
    };
    mutex_.Await(Condition(&is_settled));
    const auto found = entries_.find(memory.data());
    if (found != entries_.end()) {
      if (found->second.bytes != memory.size()) {
        return StatusF(absl::StatusCode::kFailedPrecondition,
                       "{} bytes of memory of which {} are registered", memory.size(),
                       found->second.bytes);
      }
      return Hold(memory, found->second);
    }
    entries_[memory.data()] = {.bytes = memory.size(), .is_changing = true};
  }
  const absl::StatusOr<const void*> on_device = calls_.add(memory);
  MutexLock lock(&mutex_);
  const auto entry = entries_.find(memory.data());
  if (!on_device.ok()) {
    entries_.erase(entry);
    return on_device.status();
  }
  entry->second.on_device = *on_device;
  entry->second.is_changing = false;
  return Hold(memory, entry->second);
}

void HostRegistrations::Release(const std::byte* memory) {
  {
    MutexLock lock(&mutex_);
    const auto found = entries_.find(memory);
    TESSERA_CHECK(found != entries_.end() && !found->second.is_changing);
    if (--found->second.holders > 0) {
      return;
    }
    found->second.is_changing = true;
  }
  calls_.remove(memory);
  MutexLock lock(&mutex_);
  entries_.erase(memory);
}

HostRegistrations::Registration::~Registration() { owner_->Release(memory_); }

}  // namespace tessera::kernels::cuda
