// Groups over the devices of their ranks (kernels::LocalDevices). Rank 0 makes the id by
// which the devices find each other; every rank joins by it. Ranks that are threads of
// one process hand it over in memory. Between processes it goes over a Communicator that
// they have already, MPI's, in a record of each rank:
//
//   0    4    "TDG1"
//   4    4    rank
//   8    4    ranks of the group
//   12   4    1: an id follows; 0: zeros
//   16   8    epoch
//   24   8    FNV-1a of the group's name
//   32   16   the rank's device
//   48   128  the id, rank 0's alone
//
// in the host's byte order: the ranks of a group run on one architecture. Every rank
// sends its record to all, so all come to the same verdict before any of them waits for a
// device. The id is opaque here: what NCCL reads from it is NCCL's affair, so it is as
// trustworthy as the network of the job.
#ifndef TESSERA_WORKER_COMM_NCCL_DEVICE_GROUPS_H_
#define TESSERA_WORKER_COMM_NCCL_DEVICE_GROUPS_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string_view>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/statusor.h"

#include "common/clock.h"
#include "kernels/local_devices.h"
#include "worker/comm/communicator.h"

namespace tessera::worker {

inline constexpr size_t kGroupRecordBytes = 176;

// A Communicator for each of `ranks`, threads of this process: the i-th is rank i, on the
// device of local rank ranks[i]. Errors of CreateNcclGroup and LocalDevices.
absl::StatusOr<std::vector<std::unique_ptr<Communicator>>> ConnectLocalRanks(
    std::string_view name, kernels::LocalDevices& devices, std::span<const int> ranks,
    const CommOptions& options, Clock* clock);

// Collective over `control`, start-up only: tells all ranks the id that `make_id` of rank
// 0 returns. None: two ranks have one device, which NCCL does not take.
//
// kFailedPrecondition: a rank is of another epoch, and its id with it; kDataLoss: a
// record that is none of this group's, of another size, or of another rank than sent it;
// kUnavailable: rank 0 made no id, whose own error it is there. kDeadlineExceeded: a rank
// has not come; it, and all other errors of `control`, end `control`.
absl::StatusOr<std::optional<kernels::DeviceGroupId>> AgreeOnGroupId(
    Communicator& control, uint64_t epoch, const kernels::DeviceIdentity& device,
    absl::FunctionRef<absl::StatusOr<kernels::DeviceGroupId>()> make_id);

// A rank that is a process.
struct ProcessRank {
  kernels::LocalDevices* devices = nullptr;  // of this process
  int local = 0;                             // its own one, as a local rank's
  uint64_t epoch = 0;                        // that its job was started for
};

// Collective over `control`, start-up only: its ranks as a group over their devices,
// which reach each other's processes, of the same name. It does not need `control`. Null
// where AgreeOnGroupId says none. Errors of it, CreateNcclGroup and LocalDevices.
absl::StatusOr<std::unique_ptr<Communicator>> ConnectProcessRank(
    Communicator& control, const ProcessRank& own, const CommOptions& options,
    Clock* clock);

}  // namespace tessera::worker

#endif  // TESSERA_WORKER_COMM_NCCL_DEVICE_GROUPS_H_
