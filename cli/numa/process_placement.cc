#include "cli/numa/process_placement.h"

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstddef>
#include <cstring>

#include "fmt/format.h"
#include <linux/mempolicy.h>
#include <sched.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "common/log.h"
#include "common/status.h"
#include "common/status_macros.h"

namespace tessera::cli {
namespace {

// cpu_set_t has 1024 CPUs; the kernel takes masks of any length.
struct CpuMask {
  std::array<cpu_set_t, kMaxCpus / CPU_SETSIZE> sets = {};

  bool Has(int cpu) const {
    return CPU_ISSET_S(static_cast<size_t>(cpu), sizeof(sets), sets.data());
  }
  void Add(int cpu) { CPU_SET_S(static_cast<size_t>(cpu), sizeof(sets), sets.data()); }
};

using NodeMask = std::array<unsigned long, kMaxNumaNodes / (8 * sizeof(unsigned long))>;

// Modes as linux/mempolicy.h numbers them.
int ModeOf(MemoryPolicy policy) {
  switch (policy) {
    case MemoryPolicy::kDefault:
      return MPOL_DEFAULT;
    case MemoryPolicy::kPreferred:
      return MPOL_PREFERRED;
    case MemoryPolicy::kInterleave:
      return MPOL_INTERLEAVE;
  }
  return MPOL_DEFAULT;
}

const char* NameOf(MemoryPolicy policy) {
  switch (policy) {
    case MemoryPolicy::kDefault:
      return "default";
    case MemoryPolicy::kPreferred:
      return "preferred";
    case MemoryPolicy::kInterleave:
      return "interleave";
  }
  return "";
}

absl::Status SetMemoryPolicy(MemoryPolicy policy, std::span<const int> nodes) {
  constexpr size_t kBits = 8 * sizeof(unsigned long);
  NodeMask mask = {};
  for (const int node : nodes) {
    mask[static_cast<size_t>(node) / kBits] |= 1UL << (static_cast<size_t>(node) % kBits);
  }
  // The kernel reads one bit less than it is told.
  const bool has_nodes = !nodes.empty();
  if (::syscall(SYS_set_mempolicy, ModeOf(policy), has_nodes ? mask.data() : nullptr,
                has_nodes ? kMaxNumaNodes + 1 : 0) != 0) {
    return StatusF(absl::StatusCode::kUnimplemented, "set_mempolicy {} of nodes {}: {}",
                   NameOf(policy), ShowNumberList(nodes), std::strerror(errno));
  }
  return absl::OkStatus();
}

absl::Status SetAffinity(std::span<const int> cpus) {
  CpuMask mask;
  for (const int cpu : cpus) {
    mask.Add(cpu);
  }
  if (::sched_setaffinity(0, sizeof(mask.sets), mask.sets.data()) != 0) {
    return StatusF(absl::StatusCode::kUnimplemented, "sched_setaffinity to cpus {}: {}",
                   ShowNumberList(cpus), std::strerror(errno));
  }
  return absl::OkStatus();
}

// Part `index` of `count` even ones.
std::vector<int> ShareOf(std::span<const int> cpus, int index, int count) {
  const size_t parts = static_cast<size_t>(count);
  const size_t begin = cpus.size() * static_cast<size_t>(index) / parts;
  const size_t end = cpus.size() * (static_cast<size_t>(index) + 1) / parts;
  return {cpus.begin() + static_cast<std::ptrdiff_t>(begin),
          cpus.begin() + static_cast<std::ptrdiff_t>(end)};
}

int ThreadsOf(size_t num_cpus, int num_ranks) {
  return std::max(1, static_cast<int>(num_cpus) / num_ranks);
}

std::string TooFewNodes(size_t count) {
  return fmt::format("{} memory nodes with CPUs that this process may use, expected two",
                     count);
}

// Fills in the node of `request`; its ranks share it in order.
absl::Status PlanBind(const PlacementRequest& request, const NumaTopology& nodes,
                      ProcessPlacement* placement, HostPosition* on_node) {
  const int num_nodes = static_cast<int>(nodes.nodes.size());
  const HostPosition& position = request.position;
  if (position.num_ranks == 1) {
    return InvalidArgumentF(
        "--numa bind of one rank on {} memory nodes would leave all but one idle: give "
        "--numa interleave, or --workers {} for a rank on each",
        num_nodes, num_nodes);
  }
  const int index = NodeOfRank(position, num_nodes);
  *on_node = {.rank = 0, .num_ranks = 0};
  for (int rank = 0; rank < position.num_ranks; ++rank) {
    if (NodeOfRank({rank, position.num_ranks}, num_nodes) == index) {
      on_node->rank += rank < position.rank ? 1 : 0;
      ++on_node->num_ranks;
    }
  }
  const NumaNode& node = nodes.nodes[static_cast<size_t>(index)];
  placement->node = node.id;
  placement->cpus = node.cpus;
  placement->num_threads = ThreadsOf(node.cpus.size(), on_node->num_ranks);
  placement->idle_nodes = std::max(0, num_nodes - position.num_ranks);
  if (node.has_memory) {
    placement->memory = MemoryPolicy::kPreferred;
    placement->memory_nodes = {node.id};
  }
  return absl::OkStatus();
}

// Leaves the rank those CPUs alone that none of its neighbours pins threads to.
absl::Status PlanPinning(const PlacementRequest& request, const HostPosition& sharing,
                         std::span<const int> allowed, ProcessPlacement* placement) {
  const std::vector<int> all = placement->cpus.empty()
                                   ? std::vector<int>(allowed.begin(), allowed.end())
                                   : placement->cpus;
  const std::vector<int> share = ShareOf(all, sharing.rank, sharing.num_ranks);
  const int threads = request.threads_per_rank > 0
                          ? request.threads_per_rank
                          : ThreadsOf(all.size(), sharing.num_ranks);
  if (static_cast<size_t>(threads) > share.size()) {
    return InvalidArgumentF(
        "--pin-threads of {} threads of a rank, but {} CPUs for it: {} for {} ranks",
        threads, share.size(), all.size(), sharing.num_ranks);
  }
  if (sharing.num_ranks > 1) {
    placement->cpus = share;
  }
  placement->num_threads = threads;
  return absl::OkStatus();
}

absl::StatusOr<NumaTopology> TopologyFor(const PlacementRequest& request,
                                         const std::string& folder) {
  if (request.numa == "off") {
    return NumaTopology{};
  }
  auto topology = ReadNumaTopology(folder);
  if (topology.status().code() == absl::StatusCode::kNotFound) {
    return NumaTopology{};
  }
  return topology;
}

void LogPlacement(const PlacementRequest& request, const ProcessPlacement& placement,
                  std::span<const int> allowed) {
  if (!placement.off_why.empty()) {
    log::Warning("numa", "runs as with --numa off",
                 {{"numa", request.numa}, {"why", placement.off_why}});
  }
  if (placement.idle_nodes > 0) {
    log::Warning(
        "numa", "memory nodes without a rank",
        {{"idle_nodes", placement.idle_nodes}, {"ranks", request.position.num_ranks}});
  }
  log::Info("numa", "placed",
            {{"rank_here", request.position.rank},
             {"node", placement.node.has_value() ? fmt::format("{}", *placement.node)
                                                 : std::string("any")},
             {"cpus", ShowNumberList(placement.cpus.empty() ? allowed : placement.cpus)},
             {"memory", NameOf(placement.memory)},
             {"memory_nodes", ShowNumberList(placement.memory_nodes)},
             {"default_threads", placement.num_threads},
             {"pinned", request.pin_threads}});
}

}  // namespace

int NodeOfRank(const HostPosition& position, int num_nodes) {
  return position.rank * num_nodes / position.num_ranks;
}

absl::StatusOr<ProcessPlacement> PlanPlacement(const PlacementRequest& request,
                                               const NumaTopology& topology,
                                               std::span<const int> allowed) {
  ProcessPlacement placement;
  HostPosition sharing = request.position;
  const NumaTopology nodes = NodesOfCpus(topology, allowed);
  if (request.numa == "bind") {
    if (nodes.nodes.size() < 2) {
      placement.off_why = TooFewNodes(nodes.nodes.size());
    } else {
      TESSERA_RETURN_IF_ERROR(PlanBind(request, nodes, &placement, &sharing));
    }
  } else if (request.numa == "interleave") {
    for (const NumaNode& node : nodes.nodes) {
      if (node.has_memory) {
        placement.memory_nodes.push_back(node.id);
      }
    }
    if (placement.memory_nodes.size() < 2) {
      placement.off_why = TooFewNodes(placement.memory_nodes.size());
      placement.memory_nodes.clear();
    } else {
      placement.memory = MemoryPolicy::kInterleave;
    }
  }
  if (request.pin_threads) {
    TESSERA_RETURN_IF_ERROR(PlanPinning(request, sharing, allowed, &placement));
  }
  return placement;
}

absl::Status CheckPlans(PlacementRequest request, const NumaTopology& topology,
                        std::span<const int> allowed) {
  for (int rank = 0; rank < request.position.num_ranks; ++rank) {
    request.position.rank = rank;
    TESSERA_RETURN_IF_ERROR(PlanPlacement(request, topology, allowed).status());
  }
  return absl::OkStatus();
}

absl::StatusOr<std::vector<int>> AllowedCpus() {
  CpuMask mask;
  if (::sched_getaffinity(0, sizeof(mask.sets), mask.sets.data()) != 0) {
    return StatusF(absl::StatusCode::kUnimplemented, "sched_getaffinity: {}",
                   std::strerror(errno));
  }
  std::vector<int> cpus;
  for (int cpu = 0; cpu < kMaxCpus; ++cpu) {
    if (mask.Has(cpu)) {
      cpus.push_back(cpu);
    }
  }
  return cpus;
}

absl::Status ApplyPlacement(const ProcessPlacement& placement) {
  if (placement.memory != MemoryPolicy::kDefault) {
    TESSERA_RETURN_IF_ERROR(SetMemoryPolicy(placement.memory, placement.memory_nodes));
  }
  if (placement.cpus.empty()) {
    return absl::OkStatus();
  }
  const absl::Status bound = SetAffinity(placement.cpus);
  if (!bound.ok() && placement.memory != MemoryPolicy::kDefault) {
    TESSERA_RETURN_IF_ERROR(SetMemoryPolicy(MemoryPolicy::kDefault, {}));
  }
  return bound;
}

absl::StatusOr<int> PlaceProcess(const PlacementRequest& request,
                                 const std::string& folder) {
  TESSERA_ASSIGN_OR_RETURN(const std::vector<int> allowed, AllowedCpus());
  TESSERA_ASSIGN_OR_RETURN(const NumaTopology topology, TopologyFor(request, folder));
  TESSERA_ASSIGN_OR_RETURN(ProcessPlacement placement,
                           PlanPlacement(request, topology, allowed));
  absl::Status applied = ApplyPlacement(placement);
  if (!applied.ok() && request.numa != "off" && placement.off_why.empty()) {
    PlacementRequest without = request;
    without.numa = "off";
    TESSERA_ASSIGN_OR_RETURN(placement, PlanPlacement(without, topology, allowed));
    placement.off_why = applied.ToString();
    applied = ApplyPlacement(placement);
  }
  TESSERA_RETURN_IF_ERROR(applied);
  LogPlacement(request, placement, allowed);
  return placement.num_threads;
}

absl::Status CheckPlacement(const PlacementRequest& request, const std::string& folder) {
  TESSERA_ASSIGN_OR_RETURN(const std::vector<int> allowed, AllowedCpus());
  TESSERA_ASSIGN_OR_RETURN(const NumaTopology topology, TopologyFor(request, folder));
  return CheckPlans(request, topology, allowed);
}

}  // namespace tessera::cli
