// LocalDevices: what the ranks of one process compute on: a backend for each and, where
// its ranks have devices of their own, what NCCL offers among them and, perhaps, those of
// other processes.
#ifndef TESSERA_KERNELS_LOCAL_DEVICES_H_
#define TESSERA_KERNELS_LOCAL_DEVICES_H_

#include <memory>

#include "absl/status/statusor.h"

#include "kernels/kernel_backend.h"
#include "kernels/runtime/device_collectives.h"
#include "kernels/runtime/device_group_id.h"

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
  // Whether they reach the devices of other processes, too.
  virtual bool reaches_processes() const = 0;
  // Of the device of local rank `rank`; zeros without collectives.
  virtual DeviceIdentity identity(int rank) const = 0;

  // A group that is to be formed: one of its ranks makes the id, and all join by it.
  // kUnimplemented without collectives; kUnavailable, kInternal: the transport.
  virtual absl::StatusOr<DeviceGroupId> NewGroupId() = 0;
  // Rank `rank` of the `size` of group `id`, on the device of the backend of local rank
  // `local`. The group is formed once all have joined and each is polled; with an id that
  // nobody made, or of another transport, perhaps never. kUnimplemented without
  // collectives; kInvalidArgument: no such rank, or, where that is seen, one that has
  // joined, or a device that another rank has.
  virtual absl::StatusOr<std::unique_ptr<DeviceCollectives>> JoinGroup(
      const DeviceGroupId& id, int size, int rank, int local) = 0;
};

// `cuda`: a device for each rank, of one simulated machine, or GPUs with NCCL among them.
// Ranks that are more than the GPUs share the first, and all else is the host's.
// kInvalidArgument: num_ranks outside of 1..kMaxLocalRanks, or as CreateBackend.
absl::StatusOr<std::unique_ptr<LocalDevices>> CreateLocalDevices(
    const BackendOptions& options, int num_ranks);

}  // namespace tessera::kernels

#endif  // TESSERA_KERNELS_LOCAL_DEVICES_H_
