#include "coordinator/scheduler/slot_shares.h"

namespace tessera::coordinator {

Sequence* SlotShares::FindToMove(std::span<Sequence* const> running,
                                 int32_t priority) const {
  const auto held = [](const Sequence* sequence) {
    return static_cast<double>(sequence->tenant->num_running) /
           sequence->tenant->policy.weight;
  };
  Sequence* found = nullptr;
  for (Sequence* sequence : running) {
    if (sequence->spec.priority < priority || !Exceeds(*sequence->tenant)) {
      continue;
    }
    if (found == nullptr || held(sequence) > held(found) ||
        (held(sequence) == held(found) && RunsBefore()(found, sequence))) {
      found = sequence;
    }
  }
  return found;
}

}  // namespace tessera::coordinator
