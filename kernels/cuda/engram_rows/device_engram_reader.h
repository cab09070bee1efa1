// The EngramReader of a device of a machine: few rows of a registered table are read by a
// kernel, all others are staged (row_path.h). What the host stages is the rows or, where
// the device reads them, their ids, so that either way the stream may run ahead.
#ifndef TESSERA_KERNELS_CUDA_ENGRAM_ROWS_DEVICE_ENGRAM_READER_H_
#define TESSERA_KERNELS_CUDA_ENGRAM_ROWS_DEVICE_ENGRAM_READER_H_

#include <functional>
#include <memory>

#include "absl/status/statusor.h"

#include "common/clock.h"
#include "kernels/cuda/engram_rows/host_registrations.h"
#include "kernels/cuda/engram_rows/row_path.h"
#include "kernels/cuda/primitives/device.cuh"
#include "kernels/engram_reader.h"

namespace tessera::kernels::cuda {

struct DeviceEngramReaderOptions {
  int device = 0;
  RowPathLimits limits = {};
  // The machine's stream behind one of the backend's.
  std::function<GpuStream&(Stream&)> gpu_stream;
};

// Errors of GpuFlag::CheckSupport: kUnimplemented where streams cannot wait for a flag.
//
// A table that cannot be registered is gathered by the host, and the first one of a
// reader is logged with the reason: the driver has no such registration
// (kUnimplemented), somebody else holds part of it (kFailedPrecondition), or its pages
// cannot all be pinned (kResourceExhausted).
absl::StatusOr<std::unique_ptr<EngramReader>> CreateDeviceEngramReader(
    std::shared_ptr<GpuMachine> machine, std::shared_ptr<HostRegistrations> registrations,
    DeviceEngramReaderOptions options, Clock* clock);

}  // namespace tessera::kernels::cuda

#endif  // TESSERA_KERNELS_CUDA_ENGRAM_ROWS_DEVICE_ENGRAM_READER_H_
