// DeviceLimits: what a backend's device can do at most, measured, for benchmarks that
// print shares of it.
#ifndef TESSERA_KERNELS_DEVICE_LIMITS_H_
#define TESSERA_KERNELS_DEVICE_LIMITS_H_

#include <string>
#include <string_view>

#include "absl/status/statusor.h"

#include "common/clock.h"

namespace tessera::kernels {

struct DeviceLimits {
  std::string device;     // name and properties
  int clock_mhz_max = 0;  // as the driver tells them
  int memory_mhz_max = 0;
  double read_bytes_per_s = 0;     // of device memory, over 4 GiB
  double multiply_adds_per_s = 0;  // float32, without tensor cores
};

// The best of several rounds; a second or so. kUnimplemented of a backend that is no GPU:
// a simulator has no speed, and the host's own limits are the benchmarks' to measure.
// Otherwise the errors of CreateBackend.
absl::StatusOr<DeviceLimits> MeasureDeviceLimits(std::string_view backend, Clock* clock);

}  // namespace tessera::kernels

#endif  // TESSERA_KERNELS_DEVICE_LIMITS_H_
