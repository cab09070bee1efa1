// PickDpRank: which data-parallel rank of a group takes a new sequence. A pure function
// of a snapshot, so that it can be tested on tables and replayed.
#ifndef TESSERA_ROUTING_DP_RANK_POLICY_H_
#define TESSERA_ROUTING_DP_RANK_POLICY_H_

#include <cstdint>
#include <optional>
#include <span>

namespace tessera::routing {

// What the policy may look at of one rank.
struct DpRankLoad {
  bool has_free_slot = false;
  int64_t pending_tokens = 0;  // that its sequences still have to prefill
  int64_t num_sequences = 0;   // running
  int64_t blocks_used = 0;     // that running sequences hold
  int64_t blocks_free = 0;     // allocatable, cached ones included
  int64_t cached_tokens = 0;  // of the new sequence's tokens, that its prefix cache holds
};

// What the new sequence needs.
struct DpRankDemand {
  int64_t num_tokens = 0;  // to have in the KV cache before its first sample
  int64_t block_size = 16;
};

// A token that a rank holds for its running sequences weighs as much as one of so many
// tokens that it has to compute: every decode reads what is held, and a rank that is full
// preempts.
inline constexpr int64_t kHeldTokensPerToken = 16;

// The rank with the least load after taking the sequence: tokens to compute, its own
// backlog included, where each running sequence counts as one token a step, and the
// tokens that it holds, of which kHeldTokensPerToken count as one. A cached prefix lowers
// the load, so affinity is a consequence and yields once the rank is busier than the
// prefix is long. Ties go to the rank with more free blocks, then to the lower index.
// Ranks without a slot or without the blocks for the tokens do not qualify; nullopt if
// none does.
std::optional<int> PickDpRank(std::span<const DpRankLoad> loads,
                              const DpRankDemand& demand);

}  // namespace tessera::routing

#endif  // TESSERA_ROUTING_DP_RANK_POLICY_H_
