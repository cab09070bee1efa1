// Slot shares: where all slots are taken, each tenant that has sequences is due a part of
// them in the ratio of the weights. Who is below its part need not wait until a sequence
// of a tenant above it ends: that tenant's last sequence moves over.
//
// Neither passes its part by that: who gave a slot is still at its part or above it, and
// who got one at its part or below. The same two therefore never take turns, and every
// sequence that moves over is paid for by another that is admitted.
//
// Not seen outside of this folder.
#ifndef TESSERA_COORDINATOR_SCHEDULER_SLOT_SHARES_H_
#define TESSERA_COORDINATOR_SCHEDULER_SLOT_SHARES_H_

#include <cstdint>
#include <span>

#include "coordinator/scheduler/sequence.h"
#include "coordinator/scheduler/tenant_account.h"

namespace tessera::coordinator {

// A pure value: the parts at one moment.
class SlotShares {
 public:
  // `total_weight`: of the tenants that have sequences, waiting or running.
  SlotShares(int64_t num_slots, double total_weight)
      : slots_per_weight_(total_weight > 0 ? static_cast<double>(num_slots) / total_weight
                                           : 0) {}

  // Whether the tenant is due another slot.
  bool Lacks(const TenantAccount& tenant) const {
    return static_cast<double>(tenant.num_running + 1) <= Of(tenant);
  }

  // Whether the tenant has its part without one of its slots.
  bool Exceeds(const TenantAccount& tenant) const {
    return static_cast<double>(tenant.num_running - 1) >= Of(tenant);
  }

  // Of `running`, the sequence that moves over for one of `priority`: of the tenant that
  // has most for its weight, the last by RunsBefore. None of a better priority moves;
  // null if none may.
  Sequence* FindToMove(std::span<Sequence* const> running, int32_t priority) const;

 private:
  double Of(const TenantAccount& tenant) const {
    return slots_per_weight_ * tenant.policy.weight;
  }

  double slots_per_weight_;
};

}  // namespace tessera::coordinator

#endif  // TESSERA_COORDINATOR_SCHEDULER_SLOT_SHARES_H_
