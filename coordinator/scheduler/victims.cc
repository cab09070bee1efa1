#include "coordinator/scheduler/victims.h"

#include <algorithm>
#include <iterator>
#include <vector>

namespace tessera::coordinator {
namespace {

using Ranks = std::span<DpRank* const>;

std::vector<Sequence*> AllWorse(const DpRank& rank, int32_t priority) {
  std::vector<Sequence*> worse;
  std::copy_if(
      rank.running().begin(), rank.running().end(), std::back_inserter(worse),
      [priority](const Sequence* other) { return other->spec.priority > priority; });
  return worse;
}

Sequence* FindForHolder(Ranks ranks, const Sequence& holder, BlockClaim* claim) {
  const DpRank* where = nullptr;
  for (const DpRank* rank : ranks) {
    if (rank->has_free_slot() && rank->WillHaveBlocksFor(holder, {})) {
      return nullptr;  // What is free, or comes free, is enough.
    }
    // The claim's own rank if it will do; no other once somebody has left that.
    if (rank->dp_rank() != claim->dp_rank() &&
        (where != nullptr || claim->makes_room())) {
      continue;
    }
    const std::vector<Sequence*> worse = AllWorse(*rank, holder.spec.priority);
    if (!worse.empty() && rank->WillHaveBlocksFor(holder, worse)) {
      where = rank;
    }
  }
  if (where == nullptr) {
    return nullptr;
  }
  claim->MakeRoom(where->dp_rank());
  return where->FindWorse(holder.spec.priority);
}

Sequence* FindForSlot(Ranks ranks, const Sequence& waiting, const BlockClaim& claim) {
  // Beside the claim of another that is no worse it must find everything at once, and is
  // tried once: the claim may refuse it, and the slot would go back.
  const bool may_claim =
      !claim.active() || waiting.spec.priority < claim.holder()->spec.priority;
  if (!may_claim && waiting.misfit.has_value()) {
    return nullptr;
  }
  Sequence* victim = nullptr;
  for (const DpRank* rank : ranks) {
    Sequence* worst = rank->FindWorse(waiting.spec.priority);
    if (worst == nullptr || (victim != nullptr && RunsBefore()(worst, victim))) {
      continue;
    }
    std::vector<Sequence*> leaving = {worst};
    if (may_claim) {
      leaving = AllWorse(*rank, waiting.spec.priority);
    }
    if (rank->WillHaveBlocksFor(waiting, leaving)) {
      victim = worst;
    }
  }
  return victim;
}

}  // namespace

Sequence* FindVictim(Ranks ranks, const Sequence& waiting, BlockClaim* claim) {
  const auto none_worse = [&waiting](const DpRank* rank) {
    return rank->FindWorse(waiting.spec.priority) == nullptr;
  };
  if (std::all_of(ranks.begin(), ranks.end(), none_worse)) {
    return nullptr;
  }
  if (claim->HeldBy(waiting)) {
    return FindForHolder(ranks, waiting, claim);
  }
  const auto has_slot = [](const DpRank* rank) { return rank->has_free_slot(); };
  return std::any_of(ranks.begin(), ranks.end(), has_slot)
             ? nullptr
             : FindForSlot(ranks, waiting, *claim);
}

Sequence* FindAboveShare(Ranks ranks, const Sequence& waiting, const SlotShares& shares) {
  if (!shares.Lacks(*waiting.tenant)) {
    return nullptr;
  }
  for (const DpRank* rank : ranks) {
    Sequence* victim = shares.FindToMove(rank->running(), waiting.spec.priority);
    if (victim != nullptr && rank->HasBlocksFor(waiting)) {
      return victim;
    }
  }
  return nullptr;
}

}  // namespace tessera::coordinator
