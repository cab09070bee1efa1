// ExpertPlacement: which rank holds which routed expert. A value with a version: a
// StepPlan names the version that it was made for, and a worker refuses another. Pure
// policy: no I/O, no threads. It does not say how rows travel (worker/comm) nor how
// weights move.
#ifndef TESSERA_ROUTING_EXPERT_PLACEMENT_H_
#define TESSERA_ROUTING_EXPERT_PLACEMENT_H_

#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace tessera::routing {

// Immutable by convention; compare and copy freely.
struct ExpertPlacement {
  uint64_t version = 0;
  int num_ranks = 0;
  // World rank of each logical expert: [num_experts].
  std::vector<int> rank_of_expert;

  int num_experts() const { return static_cast<int>(rank_of_expert.size()); }

  bool operator==(const ExpertPlacement&) const = default;
};

// The world rank of each of `num_experts` experts in contiguous runs that differ by at
// most one expert, the longer runs first. kInvalidArgument: a count below one, or fewer
// experts than ranks (a rank without an expert would idle in every MoE layer).
absl::StatusOr<std::vector<int>> StaticPlacement(int num_experts, int num_ranks);

// StaticPlacement with a version.
absl::StatusOr<ExpertPlacement> MakeStaticPlacement(int num_experts, int num_ranks,
                                                    uint64_t version);

// kInvalidArgument: no ranks, no experts, a rank out of range, or a rank that holds no
// expert; the message names the first offender.
absl::Status ValidatePlacement(const ExpertPlacement& placement);

// The logical experts on `world_rank`, ascending: the order in which a rank stores their
// weights. Empty for a rank that the placement does not know.
std::vector<int> ExpertsOfRank(const ExpertPlacement& placement, int world_rank);

}  // namespace tessera::routing

#endif  // TESSERA_ROUTING_EXPERT_PLACEMENT_H_
