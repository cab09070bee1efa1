// LocalDevices: what the ranks of one process compute on: a backend for each and, where
// its ranks have devices of their own, what NCCL offers among them.
#ifndef TESSERA_KERNELS_LOCAL_DEVICES_H_
#define TESSERA_KERNELS_LOCAL_DEVICES_H_

#include <memory>
#include <span>
#include <vector>

#include "absl/status/statusor.h"

#include "kernels/kernel_backend.h"
#include "kernels/runtime/device_collectives.h"

namespace tessera::kernels {

// More ranks than this in one process is a configuration mistake.
inline constexpr int kMaxLocalRanks = 64;

// One thread at a time. What it makes may outlive it.
class LocalDevices {
 public:
  virtual ~LocalDevices() = default;

  // Of rank `rank`. Errors are CreateBackend's.
  virtual absl::StatusOr<std::unique_ptr<KernelBackend>> CreateBackend(int rank) = 0;

  // False where ranks share the host's memory or one device: they meet there.
  virtual bool has_collectives() const = 0;
  // A group of `ranks`: the i-th is rank i of it, on the device of its backend. They are
  // formed once each of them is polled. kUnimplemented without collectives;
  // kInvalidArgument: no such rank, or one that is named twice.
  virtual absl::StatusOr<std::vector<std::unique_ptr<DeviceCollectives>>> Connect(
      std::span<const int> ranks) = 0;
};

// `cuda`: a device for each rank, of one simulated machine, or GPUs with NCCL among them.
// Ranks that are more than the GPUs share the first, and all else is the host's.
// kInvalidArgument: num_ranks outside of 1..kMaxLocalRanks, or as CreateBackend.
absl::StatusOr<std::unique_ptr<LocalDevices>> CreateLocalDevices(
    const BackendOptions& options, int num_ranks);

}  // namespace tessera::kernels

#endif  // TESSERA_KERNELS_LOCAL_DEVICES_H_
