#include "kernels/cuda_sim/sim_machine.h"

#include <array>
#include <cstring>
#include <utility>

#include "fmt/format.h"

#include "common/status.h"
#include "common/status_macros.h"
#include "kernels/cuda_sim/call_fault.h"

namespace tessera::kernels::cuda_sim {

SimMachine::SimMachine(const SimOptions& options)
    : options_(options),
      memory_(options.memory),
      checker_(&memory_, &findings_, options.check_order),
      runner_(&checker_),
      scheduler_(options.seed) {}

SimMachine::~SimMachine() = default;

DeviceIdentity SimMachine::uuid(int device) const {
  const std::array<uint64_t, 2> content = {reinterpret_cast<uintptr_t>(this),
                                           static_cast<uint64_t>(device)};
  DeviceIdentity identity;
  static_assert(sizeof(content) == sizeof(identity));
  std::memcpy(identity.data(), content.data(), sizeof(content));
  return identity;
}

absl::Status SimMachine::CheckDevice(int device) const {
  if (device >= 0 && device < options_.num_devices) {
    return absl::OkStatus();
  }
  return absl::InvalidArgumentError(
      fmt::format("device {}, expected 0 to {}", device, options_.num_devices - 1));
}

absl::StatusOr<void*> SimMachine::Malloc(int device, size_t bytes) {
  TESSERA_RETURN_IF_ERROR(CheckDevice(device));
  MutexLock lock(&mutex_);
  TESSERA_ASSIGN_OR_RETURN(Allocation * allocation,
                           memory_.Allocate(device, bytes, AllocationState::kLive));
  return allocation->data;
}

absl::StatusOr<void*> SimMachine::MallocHost(size_t bytes) {
  MutexLock lock(&mutex_);
  TESSERA_ASSIGN_OR_RETURN(Allocation * allocation,
                           memory_.Allocate(kHostMemory, bytes, AllocationState::kLive));
  return allocation->data;
}

absl::Status SimMachine::Free(void* memory) {
  MutexLock lock(&mutex_);
  Allocation* const allocation = memory_.FindUnfreed(memory);
  if (allocation == nullptr) {
    return absl::InvalidArgumentError(
        "free of an address at which no allocation begins, or one that was freed");
  }
  TESSERA_RETURN_IF_ERROR(Note(allocation->device == kHostMemory
                                   ? DrainAll()
                                   : scheduler_.DrainDevice(allocation->device)));
  memory_.MarkFreed(allocation);
  return absl::OkStatus();
}

absl::Status SimMachine::HostRegister(const void* memory, size_t bytes) {
  TESSERA_RETURN_IF_ERROR(CallFault::Check(CallFault::Call::kHostRegister));
  MutexLock lock(&mutex_);
  return memory_.Register(memory, bytes, false).status();
}

absl::StatusOr<const void*> SimMachine::HostRegisterReadOnly(const void* memory,
                                                             size_t bytes) {
  TESSERA_RETURN_IF_ERROR(CallFault::Check(CallFault::Call::kHostRegister));
  MutexLock lock(&mutex_);
  TESSERA_ASSIGN_OR_RETURN(const Allocation* const allocation,
                           memory_.Register(memory, bytes, true));
  return allocation->data;
}

void SimMachine::HostWrites(const void* memory, size_t bytes) {
  MutexLock lock(&mutex_);
  if (last_host_write_.number == 0) {
    const absl::StatusOr<uint16_t> stream = scheduler_.NewStreamId();
    if (!stream.ok()) {
      static_cast<void>(Note(stream.status()));
      return;
    }
    last_host_write_.stream = *stream;
  }
  ++last_host_write_.number;
  Clock clock = scheduler_.host_clock();
  clock.Set(last_host_write_.stream, last_host_write_.number);
  scheduler_.HostWaitedFor(clock);
  Operation operation;
  operation.name = "write of the host";
  operation.id = last_host_write_;
  operation.clock = &clock;
  operation.device = kHostMemory;
  checker_.Begin(std::move(operation));
  checker_.CopyRange(memory, bytes, AccessKind::kWrite);
}

absl::Status SimMachine::HostUnregister(const void* memory) {
  return Free(const_cast<void*>(memory));
}

absl::Status SimMachine::DeviceSynchronize(int device) {
  TESSERA_RETURN_IF_ERROR(CheckDevice(device));
  MutexLock lock(&mutex_);
  return Note(scheduler_.DrainDevice(device));
}

std::vector<Finding> SimMachine::findings() const {
  MutexLock lock(&mutex_);
  return findings_.kept();
}

absl::Status SimMachine::status() const {
  MutexLock lock(&mutex_);
  return StatusLocked();
}

uint64_t SimMachine::num_host_waits() const {
  MutexLock lock(&mutex_);
  return num_host_waits_;
}

uint64_t SimMachine::num_launches() const {
  MutexLock lock(&mutex_);
  return num_launches_;
}

absl::Status SimMachine::StatusLocked() const {
  return error_.ok() ? findings_.ToStatus() : error_;
}

absl::Status SimMachine::DrainAll() {
  for (int device = 0; device < options_.num_devices; ++device) {
    TESSERA_RETURN_IF_ERROR(scheduler_.DrainDevice(device));
  }
  return absl::OkStatus();
}

absl::Status SimMachine::Note(const absl::Status& status) {
  if (error_.ok() && !status.ok()) {
    error_ = status;
  }
  return StatusLocked();
}

}  // namespace tessera::kernels::cuda_sim
