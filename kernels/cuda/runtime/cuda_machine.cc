#include "kernels/cuda/runtime/cuda_machine.h"

#include <cstring>
#include <utility>

#include <cuda_runtime_api.h>

#include "common/status.h"
#include "common/status_macros.h"
#include "kernels/cuda/runtime/cuda_error.h"

namespace tessera::kernels::cuda {
namespace {

// sm_90a, which this build is compiled for, is code for compute capability 9.0 alone.
constexpr int kMajor = 9;
constexpr int kMinor = 0;

absl::StatusOr<int> Attribute(cudaDeviceAttr attribute, int device) {
  int value = 0;
  TESSERA_RETURN_IF_ERROR(CudaStatus(cudaDeviceGetAttribute(&value, attribute, device),
                                     "cudaDeviceGetAttribute"));
  return value;
}

absl::StatusOr<DeviceProperties> PropertiesOf(int device) {
  cudaDeviceProp found = {};
  TESSERA_RETURN_IF_ERROR(
      CudaStatus(cudaGetDeviceProperties(&found, device), "cudaGetDeviceProperties"));
  DeviceProperties properties;
  properties.name = found.name;
  properties.major = found.major;
  properties.minor = found.minor;
  properties.num_multiprocessors = found.multiProcessorCount;
  properties.memory_bytes = found.totalGlobalMem;
  static_assert(sizeof(found.uuid) == sizeof(properties.uuid));
  std::memcpy(properties.uuid.data(), &found.uuid, sizeof(found.uuid));
  TESSERA_ASSIGN_OR_RETURN(properties.clock_khz, Attribute(cudaDevAttrClockRate, device));
  TESSERA_ASSIGN_OR_RETURN(properties.memory_clock_khz,
                           Attribute(cudaDevAttrMemoryClockRate, device));
  if (found.major != kMajor || found.minor != kMinor) {
    return StatusF(absl::StatusCode::kFailedPrecondition,
                   "device {} is a {}, expected sm_{}{}", device, properties.ToString(),
                   kMajor, kMinor);
  }
  if (found.concurrentManagedAccess == 0) {
    return StatusF(absl::StatusCode::kFailedPrecondition,
                   "device {}, {}, has no concurrent managed access", device,
                   properties.ToString());
  }
  return properties;
}

}  // namespace

std::string DeviceProperties::ToString() const {
  return fmt::format("{}, sm_{}{}, {} SMs, {} GiB", name, major, minor,
                     num_multiprocessors, memory_bytes >> 30);
}

CudaMachine::CudaMachine(std::vector<DeviceProperties> devices)
    : devices_(std::move(devices)) {}

absl::StatusOr<std::shared_ptr<CudaMachine>> CudaMachine::Create() {
  int count = 0;
  TESSERA_RETURN_IF_ERROR(CudaStatus(cudaGetDeviceCount(&count), "cudaGetDeviceCount"));
  if (count == 0) {
    return CudaStatus(cudaErrorNoDevice, "cudaGetDeviceCount");
  }
  std::vector<DeviceProperties> devices;
  for (int device = 0; device < count; ++device) {
    TESSERA_ASSIGN_OR_RETURN(DeviceProperties properties, PropertiesOf(device));
    devices.push_back(std::move(properties));
  }
  return std::shared_ptr<CudaMachine>(new CudaMachine(std::move(devices)));
}

absl::Status CudaMachine::Use(int device) const {
  if (device < 0 || device >= num_devices()) {
    return InvalidArgumentF("device {}, expected 0 to {}", device, num_devices() - 1);
  }
  return CudaStatus(cudaSetDevice(device), "cudaSetDevice");
}

absl::StatusOr<void*> CudaMachine::Malloc(int device, size_t bytes) {
  TESSERA_RETURN_IF_ERROR(Use(device));
  void* memory = nullptr;
  TESSERA_RETURN_IF_ERROR(CudaStatus(cudaMalloc(&memory, bytes), "cudaMalloc"));
  return memory;
}

absl::StatusOr<void*> CudaMachine::MallocHost(size_t bytes) {
  void* memory = nullptr;
  // Portable: pinned for every device of the process.
  TESSERA_RETURN_IF_ERROR(
      CudaStatus(cudaHostAlloc(&memory, bytes, cudaHostAllocPortable), "cudaHostAlloc"));
  return memory;
}

absl::StatusOr<void*> CudaMachine::MallocManaged(int device, size_t bytes) {
  TESSERA_RETURN_IF_ERROR(Use(device));
  void* memory = nullptr;
  TESSERA_RETURN_IF_ERROR(CudaStatus(
      cudaMallocManaged(&memory, bytes, cudaMemAttachGlobal), "cudaMallocManaged"));
  return memory;
}

absl::Status CudaMachine::Free(void* memory) {
  cudaPointerAttributes attributes = {};
  TESSERA_RETURN_IF_ERROR(CudaStatus(cudaPointerGetAttributes(&attributes, memory),
                                     "cudaPointerGetAttributes"));
  switch (attributes.type) {
    case cudaMemoryTypeHost:
      return CudaStatus(cudaFreeHost(memory), "cudaFreeHost");
    case cudaMemoryTypeDevice:
    case cudaMemoryTypeManaged:
      return CudaStatus(cudaFree(memory), "cudaFree");
    default:
      return absl::InvalidArgumentError("free of an address outside the devices");
  }
}

absl::Status CudaMachine::HostRegister(const void* memory, size_t bytes) {
  return CudaStatus(
      cudaHostRegister(const_cast<void*>(memory), bytes, cudaHostRegisterPortable),
      "cudaHostRegister");
}

absl::Status CudaMachine::HostUnregister(const void* memory) {
  return CudaStatus(cudaHostUnregister(const_cast<void*>(memory)), "cudaHostUnregister");
}

absl::StatusOr<const void*> CudaMachine::HostRegisterReadOnly(const void* memory,
                                                              size_t bytes) {
  auto* const host = const_cast<void*>(memory);
  TESSERA_RETURN_IF_ERROR(CudaStatus(
      cudaHostRegister(
          host, bytes,
          cudaHostRegisterPortable | cudaHostRegisterMapped | cudaHostRegisterReadOnly),
      "cudaHostRegister"));
  // One for all devices: they share the host's address space.
  void* device = nullptr;
  const absl::Status found =
      CudaStatus(cudaHostGetDevicePointer(&device, host, 0), "cudaHostGetDevicePointer");
  if (!found.ok()) {
    static_cast<void>(cudaHostUnregister(host));  // the first error is the one to tell
    return found;
  }
  return device;
}

absl::Status CudaMachine::DeviceSynchronize(int device) {
  TESSERA_RETURN_IF_ERROR(Use(device));
  return CudaStatus(cudaDeviceSynchronize(), "cudaDeviceSynchronize");
}

}  // namespace tessera::kernels::cuda
