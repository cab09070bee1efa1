#include "routing/dp_rank_policy.h"

#include "common/check.h"

namespace tessera::routing {

std::optional<int> PickDpRank(std::span<const DpRankLoad> loads,
                              const DpRankDemand& demand) {
  TESSERA_CHECK_LT(0, demand.block_size);
  std::optional<int> best;
  int64_t best_work = 0;
  for (size_t i = 0; i < loads.size(); ++i) {
    const DpRankLoad& load = loads[i];
    // A cached block may be free itself (taking it uses it up) or shared; counting it as
    // needed is the safe side.
    const int64_t blocks =
        (demand.num_tokens + demand.block_size - 1) / demand.block_size;
    const int64_t shared = load.cached_tokens / demand.block_size;
    if (!load.has_free_slot || load.blocks_free < blocks - shared) {
      continue;
    }
    const int64_t held = load.blocks_used * demand.block_size;
    const int64_t work = load.pending_tokens + load.num_sequences + demand.num_tokens -
                         load.cached_tokens + held / kHeldTokensPerToken;
    const bool better =
        !best.has_value() || work < best_work ||
        (work == best_work &&
         load.blocks_free > loads[static_cast<size_t>(*best)].blocks_free);
    if (better) {
      best = static_cast<int>(i);
      best_work = work;
    }
  }
  return best;
}

}  // namespace tessera::routing
