#include "routing/expert_placement.h"

#include <algorithm>
#include <utility>

#include "common/status.h"
#include "common/status_macros.h"

namespace tessera::routing {

absl::StatusOr<std::vector<int>> StaticPlacement(int num_experts, int num_ranks) {
  if (num_ranks < 1 || num_experts < 1) {
    return InvalidArgumentF(
        "placement of {} experts on {} ranks, expected at least one of each", num_experts,
        num_ranks);
  }
  if (num_experts < num_ranks) {
    return InvalidArgumentF(
        "{} experts for {} ranks, expected at least one expert a rank", num_experts,
        num_ranks);
  }
  std::vector<int> ranks;
  ranks.reserve(static_cast<size_t>(num_experts));
  const int shortest = num_experts / num_ranks;
  const int num_longer = num_experts % num_ranks;
  for (int rank = 0; rank < num_ranks; ++rank) {
    const int count = shortest + (rank < num_longer ? 1 : 0);
    ranks.insert(ranks.end(), static_cast<size_t>(count), rank);
  }
  return ranks;
}

absl::StatusOr<ExpertPlacement> MakeStaticPlacement(int num_experts, int num_ranks,
                                                    uint64_t version) {
  TESSERA_ASSIGN_OR_RETURN(std::vector<int> ranks,
                           StaticPlacement(num_experts, num_ranks));
  return ExpertPlacement{
      .version = version, .num_ranks = num_ranks, .rank_of_expert = std::move(ranks)};
}

absl::Status ValidatePlacement(const ExpertPlacement& placement) {
  if (placement.num_ranks < 1 || placement.rank_of_expert.empty()) {
    return InvalidArgumentF(
        "placement of {} experts on {} ranks, expected at least one of each",
        placement.num_experts(), placement.num_ranks);
  }
  if (placement.num_experts() < placement.num_ranks) {
    return InvalidArgumentF(
        "{} experts for {} ranks, expected at least one expert a rank",
        placement.num_experts(), placement.num_ranks);
  }
  std::vector<bool> holds(static_cast<size_t>(placement.num_ranks), false);
  for (int expert = 0; expert < placement.num_experts(); ++expert) {
    const int rank = placement.rank_of_expert[static_cast<size_t>(expert)];
    if (rank < 0 || rank >= placement.num_ranks) {
      return InvalidArgumentF("expert {} on rank {}, expected 0 to {}", expert, rank,
                              placement.num_ranks - 1);
    }
    holds[static_cast<size_t>(rank)] = true;
  }
  const auto idle = std::find(holds.begin(), holds.end(), false);
  if (idle != holds.end()) {
    return InvalidArgumentF("rank {} holds no expert", idle - holds.begin());
  }
  return absl::OkStatus();
}

std::vector<int> ExpertsOfRank(const ExpertPlacement& placement, int world_rank) {
  std::vector<int> experts;
  for (int expert = 0; expert < placement.num_experts(); ++expert) {
    if (placement.rank_of_expert[static_cast<size_t>(expert)] == world_rank) {
      experts.push_back(expert);
    }
  }
  return experts;
}

}  // namespace tessera::routing
