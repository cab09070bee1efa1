// CudaMachine: the GPUs of this process, with the calls of SimMachine
// (kernels/cuda_sim/sim_machine.h), each one call of the CUDA runtime. Built where
// TESSERA_CUDA=ON.
//
// Thread-safe.
#ifndef TESSERA_KERNELS_CUDA_RUNTIME_CUDA_MACHINE_H_
#define TESSERA_KERNELS_CUDA_RUNTIME_CUDA_MACHINE_H_

#include <cstddef>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

#include "kernels/runtime/device_group_id.h"

namespace tessera::kernels::cuda {

struct DeviceProperties {
  std::string name;  // as the driver calls it
  int major = 0;     // compute capability
  int minor = 0;
  int num_multiprocessors = 0;
  size_t memory_bytes = 0;
  int clock_khz = 0;  // the highest; 0: not told
  int memory_clock_khz = 0;
  DeviceIdentity uuid = {};

  // "NVIDIA H100 80GB HBM3, sm_90, 132 SMs, 79 GiB"
  std::string ToString() const;
};

class CudaMachine {
 public:
  // Devices are those that CUDA_VISIBLE_DEVICES leaves. kNotFound, "no device: …", where
  // there is none; kFailedPrecondition: one that cannot run this build's kernels, or
  // whose managed memory the host cannot use while the device works.
  static absl::StatusOr<std::shared_ptr<CudaMachine>> Create();
  CudaMachine(const CudaMachine&) = delete;
  CudaMachine& operator=(const CudaMachine&) = delete;

  // Of a device: kInvalidArgument if there is no such device, kResourceExhausted.
  absl::StatusOr<void*> Malloc(int device, size_t bytes);
  absl::StatusOr<void*> MallocHost(size_t bytes);
  // Of a device, for the host as well, while no operation that uses it is enqueued.
  absl::StatusOr<void*> MallocManaged(int device, size_t bytes);
  // Waits for the device that has the memory. kInvalidArgument: not the beginning of an
  // allocation.
  absl::Status Free(void* memory);
  // The caller's memory for the devices' use, until HostUnregister.
  absl::Status HostRegister(const void* memory, size_t bytes);
  absl::Status HostUnregister(const void* memory);
  // The same for memory that the devices only read, which may be mapped read-only;
  // returns the address that they read it at. kFailedPrecondition if part of it is
  // registered, kUnimplemented where the driver registers no such memory.
  absl::StatusOr<const void*> HostRegisterReadOnly(const void* memory, size_t bytes);
  // For the simulator's checks (sim_machine.h); does nothing.
  void HostWrites(const void* /*memory*/, size_t /*bytes*/) {}
  absl::Status DeviceSynchronize(int device);

  int num_devices() const { return static_cast<int>(devices_.size()); }
  // cudaDeviceProp::uuid: no other device has it.
  DeviceIdentity uuid(int device) const { return properties(device).uuid; }
  const DeviceProperties& properties(int device) const {
    return devices_[static_cast<size_t>(device)];
  }
  // Makes it the calling thread's device. kInvalidArgument if there is no such device.
  absl::Status Use(int device) const;

 private:
  explicit CudaMachine(std::vector<DeviceProperties> devices);

  const std::vector<DeviceProperties> devices_;
};

}  // namespace tessera::kernels::cuda

#endif  // TESSERA_KERNELS_CUDA_RUNTIME_CUDA_MACHINE_H_
