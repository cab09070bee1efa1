// SimMachine: simulated GPUs of one process, with the calls of the CUDA runtime that
// Tessera uses, each as a method of the same meaning (cudaMalloc: Malloc). Device memory
// is host memory, so that pointers are real; streams, events and graphs run when the host
// makes them (stream_scheduler.h).
//
// What goes wrong is a Finding. The first one is also what every later Synchronize of the
// machine returns, as a CUDA error sticks to its context.
//
// Thread-safe: one lock; whoever synchronises runs the kernels, those of other devices
// included.
#ifndef TESSERA_KERNELS_CUDA_SIM_SIM_MACHINE_H_
#define TESSERA_KERNELS_CUDA_SIM_SIM_MACHINE_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

#include "common/mutex.h"
#include "kernels/cuda_sim/access_checker.h"
#include "kernels/cuda_sim/device_memory.h"
#include "kernels/cuda_sim/finding.h"
#include "kernels/cuda_sim/grid_runner.h"
#include "kernels/cuda_sim/stream_scheduler.h"
#include "kernels/runtime/device_group_id.h"

namespace tessera::kernels::cuda_sim {

class NcclTeam;

struct SimOptions {
  uint64_t seed = 1;
  int num_devices = 1;
  DeviceMemory::Limits memory = {};
  // Races, stream dependencies, uninitialised reads (access_checker.h).
  bool check_order = true;
};

class SimMachine {
 public:
  explicit SimMachine(const SimOptions& options);
  // As the real machine is made; never fails here.
  static absl::StatusOr<std::shared_ptr<SimMachine>> Create(
      const SimOptions& options = {}) {
    return std::make_shared<SimMachine>(options);
  }
  ~SimMachine();
  SimMachine(const SimMachine&) = delete;
  SimMachine& operator=(const SimMachine&) = delete;

  // Of a device: kInvalidArgument if there is no such device, kResourceExhausted.
  absl::StatusOr<void*> Malloc(int device, size_t bytes);
  absl::StatusOr<void*> MallocHost(size_t bytes);
  // Of a device, for the host as well, while no operation that uses it is enqueued. What
  // the host does with it is not seen: what it alone wrote counts as unwritten.
  absl::StatusOr<void*> MallocManaged(int device, size_t bytes) {
    return Malloc(device, bytes);
  }
  // Waits for the device that has the memory, or for all. kInvalidArgument: not the
  // beginning of an allocation, or freed before.
  absl::Status Free(void* memory);
  // The caller's memory for the devices' use, until HostUnregister.
  absl::Status HostRegister(const void* memory, size_t bytes);
  absl::Status HostUnregister(const void* memory);
  // The same for memory that the devices only read, such as a table; returns the address
  // that they read it at. kFailedPrecondition if part of it is registered.
  absl::StatusOr<const void*> HostRegisterReadOnly(const void* memory, size_t bytes);
  // Says that the host writes this pinned or registered memory now. What the devices do
  // with it must then be ordered: before, by a wait of the host; after, by an enqueue or
  // a flag (sim_flag.h) that follows. Otherwise it is a finding.
  void HostWrites(const void* memory, size_t bytes);
  absl::Status DeviceSynchronize(int device);

  int num_devices() const { return options_.num_devices; }
  // cudaDeviceProp::uuid: no other device has it.
  DeviceIdentity uuid(int device) const;
  std::vector<Finding> findings() const;
  // The first error or finding; OK if there is none.
  absl::Status status() const;
  // How often the host waited for a stream or event, however long: synchronisations,
  // copies to pageable memory, queries that said yes.
  uint64_t num_host_waits() const;
  // Kernels that the host launched, captured or not; the launch of a graph is none.
  uint64_t num_launches() const;

 private:
  friend class SimStream;
  friend class SimEvent;
  friend class SimFlag;
  friend class SimNcclComm;

  absl::Status CheckDevice(int device) const;
  absl::Status StatusLocked() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  absl::Status DrainAll() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Keeps the first error, and returns it or the first finding.
  absl::Status Note(const absl::Status& status) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const SimOptions options_;
  mutable Mutex mutex_;
  FindingLog findings_ ABSL_GUARDED_BY(mutex_);
  DeviceMemory memory_ ABSL_GUARDED_BY(mutex_);
  AccessChecker checker_ ABSL_GUARDED_BY(mutex_);
  GridRunner runner_ ABSL_GUARDED_BY(mutex_);
  StreamScheduler scheduler_ ABSL_GUARDED_BY(mutex_);
  absl::Status error_ ABSL_GUARDED_BY(mutex_);
  OpId last_host_write_ ABSL_GUARDED_BY(mutex_);  // of a stream of the host's own
  uint64_t num_nccl_teams_ ABSL_GUARDED_BY(mutex_) = 0;
  // Those whose ids somebody has as bytes.
  std::vector<std::shared_ptr<NcclTeam>> nccl_teams_ ABSL_GUARDED_BY(mutex_);
  uint64_t num_host_waits_ ABSL_GUARDED_BY(mutex_) = 0;
  uint64_t num_launches_ ABSL_GUARDED_BY(mutex_) = 0;
};

}  // namespace tessera::kernels::cuda_sim

#endif  // TESSERA_KERNELS_CUDA_SIM_SIM_MACHINE_H_
