// RegisteredTable: an Engram table in the host memory that its owner holds, ready for one
// device to read: its shards registered, and what leads from an id to a row in the
// device's own memory.
#ifndef TESSERA_KERNELS_CUDA_ENGRAM_ROWS_REGISTERED_TABLE_H_
#define TESSERA_KERNELS_CUDA_ENGRAM_ROWS_REGISTERED_TABLE_H_

#include <memory>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"

#include "kernels/cuda/engram_rows/gather_rows.h"
#include "kernels/cuda/engram_rows/host_registrations.h"
#include "kernels/cuda/primitives/device.cuh"
#include "kernels/engram_table_view.h"
#include "kernels/runtime/device_buffer.h"

namespace tessera::kernels::cuda {

// Immutable. Goes only after the work that reads it.
class RegisteredTable {
 public:
  // Start-up only. The memory of `view` must outlive it. Errors of CheckTableView, of
  // HostRegistrations::Acquire and of an allocation on the device.
  static absl::StatusOr<std::unique_ptr<RegisteredTable>> Create(
      const std::shared_ptr<GpuMachine>& machine, HostRegistrations& registrations,
      int device, const EngramTableView& view);

  const DeviceEngramTable& on_device() const { return table_; }

 private:
  RegisteredTable() = default;

  std::vector<std::unique_ptr<const HostRegistrations::Registration>> registrations_;
  DeviceBuffer lists_;  // shards, columns and places
  DeviceEngramTable table_;
};

}  // namespace tessera::kernels::cuda

#endif  // TESSERA_KERNELS_CUDA_ENGRAM_ROWS_REGISTERED_TABLE_H_
