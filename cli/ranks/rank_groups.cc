#include "cli/ranks/rank_groups.h"

#include <array>
#include <functional>
#include <string>
#include <utility>

#include "fmt/format.h"
#include <unistd.h>

#include "common/status.h"
#include "common/status_macros.h"
#include "worker/comm/in_process/in_process_group.h"
#include "worker/comm/node_layout.h"

namespace tessera::cli {
namespace {

using Member = std::unique_ptr<worker::Communicator> RankGroups::*;

// A group of each color, all of the same size.
absl::Status AddLocal(std::string_view name, Member member, int num_colors,
                      const std::function<int(int)>& color,
                      const worker::CommOptions& options, Clock* clock,
                      std::vector<RankGroups>& ranks) {
  const int size = static_cast<int>(ranks.size()) / num_colors;
  for (int own = 0; own < num_colors; ++own) {
    TESSERA_ASSIGN_OR_RETURN(
        auto group, worker::CreateInProcessGroup(fmt::format("{}{}", name, own), size,
                                                 options, clock));
    size_t next = 0;
    for (size_t rank = 0; rank < ranks.size(); ++rank) {
      if (color(static_cast<int>(rank)) == own) {
        ranks[rank].*member = std::move(group[next++]);
      }
    }
  }
  return absl::OkStatus();
}

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
    const GroupShape& shape, const worker::CommOptions& options, Clock* clock) {
  const int per_node = shape.ranks_per_node;
  if (per_node > 0 && shape.num_ranks() % per_node != 0) {
    return InvalidArgumentF("{} ranks per node, expected a divisor of {} ranks", per_node,
                            shape.num_ranks());
  }
  std::vector<RankGroups> ranks(static_cast<size_t>(shape.num_ranks()));
  TESSERA_ASSIGN_OR_RETURN(
      auto ep, worker::CreateInProcessGroup("ep", shape.num_ranks(), options, clock));
  for (size_t rank = 0; rank < ranks.size(); ++rank) {
    ranks[rank].ep = std::move(ep[rank]);
  }
  TESSERA_RETURN_IF_ERROR(AddLocal(
      "tp", &RankGroups::tp, shape.dp, [&](int rank) { return rank / shape.tp; }, options,
      clock, ranks));
  if (per_node <= 1 || per_node == shape.num_ranks()) {
    return ranks;
  }
  TESSERA_RETURN_IF_ERROR(AddLocal(
      "node", &RankGroups::node, shape.num_ranks() / per_node,
      [&](int rank) { return rank / per_node; }, options, clock, ranks));
  TESSERA_RETURN_IF_ERROR(AddLocal(
      "rail", &RankGroups::rail, per_node, [&](int rank) { return rank % per_node; },
      options, clock, ranks));
  return ranks;
}

absl::StatusOr<RankGroups> JoinGroups(ProcessGroup& job, const GroupShape& shape,
                                      const worker::CommOptions& options) {
  if (job.size() != shape.num_ranks()) {
    return InvalidArgumentF("{} processes, expected tp {} x dp {}", job.size(), shape.tp,
                            shape.dp);
  }
  const auto create = [&](std::string_view name, int color) {
    return job.CreateGroup(fmt::format("{}{}", name, color), color, options);
  };
  RankGroups groups;
  TESSERA_ASSIGN_OR_RETURN(groups.ep, job.CreateGroup("ep", 0, options));
  TESSERA_ASSIGN_OR_RETURN(groups.tp, create("tp", job.rank() / shape.tp));
  TESSERA_ASSIGN_OR_RETURN(
      const int per_node,
      worker::AgreeOnRanksPerNode(*groups.ep, HostName(), shape.ranks_per_node));
  if (per_node == 0) {
    return groups;
  }
  TESSERA_ASSIGN_OR_RETURN(groups.node, create("node", job.rank() / per_node));
  TESSERA_ASSIGN_OR_RETURN(groups.rail, create("rail", job.rank() % per_node));
  return groups;
}

}  // namespace tessera::cli
