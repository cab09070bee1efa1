// The groups that a rank talks in: its tensor-parallel group, the expert-parallel group
// of all ranks, and where the ranks lie on several nodes, its node and its rail.
#ifndef TESSERA_CLI_RANKS_RANK_GROUPS_H_
#define TESSERA_CLI_RANKS_RANK_GROUPS_H_

#include <memory>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "cli/ranks/process_group_registry.h"

#include "common/clock.h"
#include "kernels/local_devices.h"
#include "worker/comm/communicator.h"
#include "worker/comm/nccl/device_groups.h"

namespace tessera::cli {

// A group: R = tp x dp ranks; rank = dp_rank * tp + tp_rank.
struct GroupShape {
  int tp = 1;
  int dp = 1;
  // Neighbours that share a node; 0: by the hosts of a job of processes, and ranks of one
  // process all on one.
  int ranks_per_node = 0;

  int num_ranks() const { return tp * dp; }
};

struct RankGroups {
  std::unique_ptr<worker::Communicator> tp;
  std::unique_ptr<worker::Communicator> ep;
  std::unique_ptr<worker::Communicator> node;  // these two or neither
  std::unique_ptr<worker::Communicator> rail;

  // All of them. Any thread.
  void Abort(std::string_view reason) const;
};

// Of every rank, as threads of this process, in rank order. Groups run over the
// collectives of `devices`, if they have some, and otherwise (or null) through the memory
// of the process. kInvalidArgument: ranks_per_node does not divide the ranks;
// kDeadlineExceeded: the devices formed no group in time.
absl::StatusOr<std::vector<RankGroups>> MakeLocalGroups(
    const GroupShape& shape, kernels::LocalDevices* devices,
    const worker::CommOptions& options, Clock* clock);

// Of this process's rank of `job`; collective. Groups run over the devices of `own`, if
// they reach other processes and each rank of the job has one to itself, and otherwise
// (or without devices) over the job's own transport. kInvalidArgument: the job has
// another number of processes, or its processes have other ideas of their nodes; errors
// of ConnectProcessRank.
absl::StatusOr<RankGroups> JoinGroups(ProcessGroup& job, const GroupShape& shape,
                                      const worker::ProcessRank& own,
                                      const worker::CommOptions& options, Clock* clock);

}  // namespace tessera::cli

#endif  // TESSERA_CLI_RANKS_RANK_GROUPS_H_
