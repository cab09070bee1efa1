#include "kernels/cuda_sim/device_memory.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <utility>

#include "fmt/format.h"

#include "common/check.h"
#include "common/status.h"

namespace tessera::kernels::cuda_sim {
namespace {

constexpr size_t kAlignment = 256;  // what cudaMalloc promises
// A quiet NaN as float32 and an unlikely index: what leaks into a result is seen there.
constexpr int kFreshByte = 0xff;

}  // namespace

DeviceMemory::~DeviceMemory() {
  for (const auto& [address, allocation] : by_address_) {
    if (allocation->owned) {
      std::free(allocation->data);
    }
  }
}

absl::StatusOr<Allocation*> DeviceMemory::Allocate(int device, size_t bytes,
                                                   AllocationState state) {
  size_t& used = used_bytes_[device];
  if (device != kHostMemory && bytes > limits_.device_bytes - used) {
    return absl::ResourceExhaustedError(
        fmt::format("device {}: {} bytes asked for, {} of {} in use", device, bytes, used,
                    limits_.device_bytes));
  }
  const size_t rounded = (bytes / kAlignment + 1) * kAlignment;
  void* const data = std::aligned_alloc(kAlignment, rounded);
  if (data == nullptr) {
    return absl::ResourceExhaustedError(
        fmt::format("cannot allocate {} bytes of host memory", rounded));
  }
  std::memset(data, kFreshByte, rounded);
  used += bytes;
  auto allocation = std::make_unique<Allocation>();
  allocation->id = next_id_++;
  allocation->data = static_cast<std::byte*>(data);
  allocation->bytes = bytes;
  allocation->device = device;
  allocation->state = state;
  allocation->shadow = ShadowPages(bytes);
  Allocation* const result = allocation.get();
  by_address_[result->data] = std::move(allocation);
  return result;
}

absl::StatusOr<Allocation*> DeviceMemory::Register(const void* data, size_t bytes,
                                                   bool read_only) {
  const auto* const begin = static_cast<const std::byte*>(data);
  auto next = by_address_.lower_bound(begin);
  const bool meets_next = next != by_address_.end() && next->first < begin + bytes;
  if (meets_next || Find(data) != nullptr) {
    return absl::FailedPreconditionError(
        fmt::format("{} bytes of host memory to register overlap an allocation", bytes));
  }
  auto allocation = std::make_unique<Allocation>();
  allocation->id = next_id_++;
  allocation->data = const_cast<std::byte*>(begin);
  allocation->bytes = bytes;
  allocation->owned = false;
  allocation->read_only = read_only;
  allocation->shadow = ShadowPages(bytes);
  Allocation* const result = allocation.get();
  by_address_[begin] = std::move(allocation);
  return result;
}

Allocation* DeviceMemory::Find(const void* address) {
  auto after = by_address_.upper_bound(static_cast<const std::byte*>(address));
  if (after == by_address_.begin()) {
    return nullptr;
  }
  Allocation* const candidate = std::prev(after)->second.get();
  return candidate->Contains(address) ? candidate : nullptr;
}

Allocation* DeviceMemory::FindUnfreed(const void* begin) {
  const auto found = by_address_.find(static_cast<const std::byte*>(begin));
  const bool usable =
      found != by_address_.end() && found->second->state != AllocationState::kFreed;
  return usable ? found->second.get() : nullptr;
}

void DeviceMemory::MarkFreed(Allocation* allocation) {
  TESSERA_CHECK(allocation->state != AllocationState::kFreed);
  allocation->state = AllocationState::kFreed;
  used_bytes_[allocation->device] -= allocation->owned ? allocation->bytes : 0;
  if (!allocation->owned) {
    unregistered_.push_back({allocation->data, allocation->data + allocation->bytes});
    if (unregistered_.size() > kMaxUnregistered) {
      unregistered_.pop_front();
    }
    Release(allocation);
    return;
  }
  allocation->shadow = ShadowPages(0);
  quarantine_.push_back(allocation);
  quarantined_bytes_ += allocation->bytes;
  while (quarantined_bytes_ > limits_.quarantine_bytes) {
    Allocation* const oldest = quarantine_.front();
    quarantine_.pop_front();
    quarantined_bytes_ -= oldest->bytes;
    Release(oldest);
  }
}

bool DeviceMemory::WasRegistered(const void* address) const {
  const auto* const at = static_cast<const std::byte*>(address);
  return std::any_of(
      unregistered_.begin(), unregistered_.end(),
      [at](const Range& range) { return at >= range.begin && at < range.end; });
}

void DeviceMemory::Release(Allocation* allocation) {
  if (allocation->owned) {
    std::free(allocation->data);
  }
  by_address_.erase(allocation->data);
}

}  // namespace tessera::kernels::cuda_sim
