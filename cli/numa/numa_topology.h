// NumaTopology: the memory nodes of this machine and which CPUs lie at which, as Linux
// shows them in /sys/devices/system/node (kernel: Documentation/ABI/stable/
// sysfs-devices-node).
#ifndef TESSERA_CLI_NUMA_NUMA_TOPOLOGY_H_
#define TESSERA_CLI_NUMA_NUMA_TOPOLOGY_H_

#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"

namespace tessera::cli {

inline constexpr const char* kNumaNodeFolder = "/sys/devices/system/node";
// What Linux can be built for at most (NODES_SHIFT 10, NR_CPUS_RANGE_END 8192 on x86).
inline constexpr int kMaxNumaNodes = 1024;
inline constexpr int kMaxCpus = 8192;

struct NumaNode {
  int id = 0;
  std::vector<int> cpus;  // in rising order; none: memory alone, as of a CXL device
  bool has_memory = true;

  bool operator==(const NumaNode&) const = default;
};

struct NumaTopology {
  std::vector<NumaNode> nodes;  // by rising id

  bool operator==(const NumaTopology&) const = default;
};

// "0-3,8-11" as numbers; empty text is no number. kInvalidArgument: anything but rising
// numbers and ranges below `limit`.
absl::StatusOr<std::vector<int>> ParseNumberList(std::string_view text, int limit);
// The same the other way round.
std::string ShowNumberList(std::span<const int> numbers);

// The nodes that are online. kNotFound: this system shows none. kInvalidArgument: a list
// as above, a file over kMaxSmallFileBytes, or a CPU at two nodes; names the file.
absl::StatusOr<NumaTopology> ReadNumaTopology(const std::string& folder);

// The nodes that have some of `cpus`, which rise, with those alone.
NumaTopology NodesOfCpus(const NumaTopology& topology, std::span<const int> cpus);

}  // namespace tessera::cli

#endif  // TESSERA_CLI_NUMA_NUMA_TOPOLOGY_H_
