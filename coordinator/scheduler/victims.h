// Victims: which running sequence gives its place up for a waiting one of a better
// priority. Nobody gives a place up in vain: one is asked for only where the waiting
// sequence has its blocks once all of a worse priority there have left. What equal or
// better ones hold it waits for, beside the worse ones.
//
// Blocks are given to the holder of the claim (block_claim.h) alone, on one rank, which
// the claim then keeps closed to worse priorities: who left does not come back before the
// holder has what it waits for. A slot is given to anyone, since a sequence without one
// was never tried and could claim nothing.
//
// Not seen outside of this folder.
#ifndef TESSERA_COORDINATOR_SCHEDULER_VICTIMS_H_
#define TESSERA_COORDINATOR_SCHEDULER_VICTIMS_H_

#include <span>

#include "coordinator/scheduler/block_claim.h"
#include "coordinator/scheduler/dp_rank.h"
#include "coordinator/scheduler/sequence.h"
#include "coordinator/scheduler/slot_shares.h"

namespace tessera::coordinator {

// The sequence that leaves its rank next for `waiting`, whose keys cover its tokens;
// null: none does in this plan. Where `waiting` holds `claim`, that moves to the rank.
// `ranks` are those that may admit it.
Sequence* FindVictim(std::span<DpRank* const> ranks, const Sequence& waiting,
                     BlockClaim* claim);

// The sequence that moves over for `waiting`, whose tenant is due another slot
// (slot_shares.h), on one of `ranks`; null if none does.
Sequence* FindAboveShare(std::span<DpRank* const> ranks, const Sequence& waiting,
                         const SlotShares& shares);

}  // namespace tessera::coordinator

#endif  // TESSERA_COORDINATOR_SCHEDULER_VICTIMS_H_
