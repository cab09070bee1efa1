// ProcessPlacement: on which CPUs of the machine a process runs and at which memory nodes
// its memory lies. Decided from facts alone (PlanPlacement), then asked of the kernel
// (ApplyPlacement); PlaceProcess is both. Affinity and policy belong to a thread and are
// inherited by those that it starts: a process is placed before it starts any, and before
// it touches what is to lie right.
#ifndef TESSERA_CLI_NUMA_PROCESS_PLACEMENT_H_
#define TESSERA_CLI_NUMA_PROCESS_PLACEMENT_H_

#include <optional>
#include <span>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "cli/numa/numa_topology.h"
#include "cli/ranks/process_group_registry.h"

namespace tessera::cli {

struct PlacementRequest {
  std::string numa = "off";  // off, bind or interleave
  bool pin_threads = false;
  int threads_per_rank = 0;  // 0: as many as the rank has CPUs
  HostPosition position;
};

enum class MemoryPolicy { kDefault, kPreferred, kInterleave };

struct ProcessPlacement {
  std::optional<int> node;  // id of the one that the process is bound to
  std::vector<int> cpus;    // of the process; empty: as they are
  MemoryPolicy memory = MemoryPolicy::kDefault;
  std::vector<int> memory_nodes;
  int num_threads = 0;  // of a rank by default; 0: the machine's cores by its ranks
  int idle_nodes = 0;   // at which no rank of this host is bound
  std::string off_why;  // why `numa` changes nothing here; empty: it does, or is off
};

// Index of the node of rank `position`, of `num_nodes`: ranks in order, evenly.
int NodeOfRank(const HostPosition& position, int num_nodes);

// `allowed` are the CPUs that the process may run on, in rising order; nodes without any
// of them do not count. kInvalidArgument: bind of one rank on several nodes, which would
// leave the others idle; pinned threads without a CPU each.
absl::StatusOr<ProcessPlacement> PlanPlacement(const PlacementRequest& request,
                                               const NumaTopology& topology,
                                               std::span<const int> allowed);

// The first error of the plans of all its ranks, whatever `position.rank` says.
absl::Status CheckPlans(PlacementRequest request, const NumaTopology& topology,
                        std::span<const int> allowed);

// The CPUs that the calling thread may run on, in rising order.
absl::StatusOr<std::vector<int>> AllowedCpus();

// Of the calling thread and those that it will start. kUnimplemented: the kernel refuses
// (a container's seccomp filter, a cpuset, no NUMA); then nothing has changed.
absl::Status ApplyPlacement(const ProcessPlacement& placement);

// Places this process and logs how; `folder` as kNumaNodeFolder. With one node, and where
// the kernel refuses, it goes on as with off and the log says why. Returns num_threads.
absl::StatusOr<int> PlaceProcess(const PlacementRequest& request,
                                 const std::string& folder);

// What PlaceProcess would say to any of the ranks that `request` has on this host; asks
// nothing of the kernel.
absl::Status CheckPlacement(const PlacementRequest& request, const std::string& folder);

}  // namespace tessera::cli

#endif  // TESSERA_CLI_NUMA_PROCESS_PLACEMENT_H_
