#include "cli/ranks/rank_groups.h"

#include <array>
#include <functional>
#include <numeric>
#include <span>
#include <string>
#include <utility>

#include "fmt/format.h"
#include <unistd.h>

#include "common/status.h"
#include "common/status_macros.h"
#include "worker/comm/in_process/in_process_group.h"
#include "worker/comm/nccl/device_groups.h"
#include "worker/comm/node_layout.h"

namespace tessera::cli {
namespace {

using Member = std::unique_ptr<worker::Communicator> RankGroups::*;
using Group = std::vector<std::unique_ptr<worker::Communicator>>;

// Makes the groups of ranks that are threads of this process.
class LocalGroupMaker {
 public:
  LocalGroupMaker(kernels::LocalDevices* devices, const worker::CommOptions& options,
                  Clock* clock)
      : devices_(devices), options_(options), clock_(clock) {}

  absl::Status Add(std::string_view name, Member member, std::span<const int> members,
                   std::vector<RankGroups>& ranks) const {
    TESSERA_ASSIGN_OR_RETURN(Group group, Create(name, members));
    for (size_t i = 0; i < members.size(); ++i) {
      ranks[static_cast<size_t>(members[i])].*member = std::move(group[i]);
    }
    return absl::OkStatus();
  }

  // A group of each color.
  absl::Status AddColors(std::string_view name, Member member, int num_colors,
                         const std::function<int(int)>& color,
                         std::vector<RankGroups>& ranks) const {
    for (int own = 0; own < num_colors; ++own) {
      std::vector<int> members;
      for (int rank = 0; rank < static_cast<int>(ranks.size()); ++rank) {
        if (color(rank) == own) {
          members.push_back(rank);
        }
      }
      TESSERA_RETURN_IF_ERROR(
          Add(fmt::format("{}{}", name, own), member, members, ranks));
    }
    return absl::OkStatus();
  }

 private:
  absl::StatusOr<Group> Create(std::string_view name,
                               std::span<const int> members) const {
    if (devices_ == nullptr || !devices_->has_collectives()) {
      return worker::CreateInProcessGroup(name, static_cast<int>(members.size()),
                                          options_, clock_);
    }
    return worker::ConnectLocalRanks(name, *devices_, members, options_, clock_);
  }

  kernels::LocalDevices* const devices_;
  const worker::CommOptions options_;
  Clock* const clock_;
};

std::string HostName() {
  std::array<char, 256> name = {};
  return ::gethostname(name.data(), name.size() - 1) == 0 ? name.data() : "";
}

}  // namespace

void RankGroups::Abort(std::string_view reason) const {
  for (const auto* group : {&tp, &ep, &node, &rail}) {
    if (*group != nullptr) {
      (*group)->Abort(reason);
    }
  }
}

absl::StatusOr<std::vector<RankGroups>> MakeLocalGroups(
    const GroupShape& shape, kernels::LocalDevices* devices,
    const worker::CommOptions& options, Clock* clock) {
  const int per_node = shape.ranks_per_node;
  if (per_node > 0 && shape.num_ranks() % per_node != 0) {
    return InvalidArgumentF("{} ranks per node, expected a divisor of {} ranks", per_node,
                            shape.num_ranks());
  }
  std::vector<RankGroups> ranks(static_cast<size_t>(shape.num_ranks()));
  const LocalGroupMaker maker(devices, options, clock);
  std::vector<int> all(ranks.size());
  std::iota(all.begin(), all.end(), 0);
  TESSERA_RETURN_IF_ERROR(maker.Add("ep", &RankGroups::ep, all, ranks));
  TESSERA_RETURN_IF_ERROR(maker.AddColors(
      "tp", &RankGroups::tp, shape.dp, [&](int rank) { return rank / shape.tp; }, ranks));
  if (per_node <= 1 || per_node == shape.num_ranks()) {
    return ranks;
  }
  TESSERA_RETURN_IF_ERROR(maker.AddColors(
      "node", &RankGroups::node, shape.num_ranks() / per_node,
      [&](int rank) { return rank / per_node; }, ranks));
  TESSERA_RETURN_IF_ERROR(maker.AddColors(
      "rail", &RankGroups::rail, per_node, [&](int rank) { return rank % per_node; },
      ranks));
  return ranks;
}

absl::StatusOr<RankGroups> JoinGroups(ProcessGroup& job, const GroupShape& shape,
                                      const worker::ProcessRank& own,
                                      const worker::CommOptions& options, Clock* clock) {
  if (job.size() != shape.num_ranks()) {
    return InvalidArgumentF("{} processes, expected tp {} x dp {}", job.size(), shape.tp,
                            shape.dp);
  }
  // The group of all ranks decides for the others.
  bool over_devices = own.devices != nullptr && own.devices->reaches_processes();
  const auto create =
      [&](const std::string& name,
          int color) -> absl::StatusOr<std::unique_ptr<worker::Communicator>> {
    TESSERA_ASSIGN_OR_RETURN(auto control, job.CreateGroup(name, color, options));
    if (!over_devices) {
      return control;
    }
    TESSERA_ASSIGN_OR_RETURN(auto group,
                             worker::ConnectProcessRank(*control, own, options, clock));
    over_devices = group != nullptr;
    return over_devices ? std::move(group) : std::move(control);
  };
  const auto create_own = [&](std::string_view name, int color) {
    return create(fmt::format("{}{}", name, color), color);
  };
  RankGroups groups;
  TESSERA_ASSIGN_OR_RETURN(groups.ep, create("ep", 0));
  TESSERA_ASSIGN_OR_RETURN(groups.tp, create_own("tp", job.rank() / shape.tp));
  TESSERA_ASSIGN_OR_RETURN(
      const int per_node,
      worker::AgreeOnRanksPerNode(*groups.ep, HostName(), shape.ranks_per_node));
  if (per_node == 0) {
    return groups;
  }
  TESSERA_ASSIGN_OR_RETURN(groups.node, create_own("node", job.rank() / per_node));
  TESSERA_ASSIGN_OR_RETURN(groups.rail, create_own("rail", job.rank() % per_node));
  return groups;
}

}  // namespace tessera::cli
