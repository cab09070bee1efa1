// TenantAccount: what the scheduler keeps of one tenant: what it was granted, what it has
// got, and its waiting sequences. The orders in which sequences are admitted, prefilled
// and preempted stand here as well, since all of them look at accounts.
//
// Virtual time is tokens scheduled / weight. The waiting tenant with the least is served
// next, so that tenants that always have work get tokens in the ratio of their weights. A
// tenant that had no work starts at the time of those that have (WaitingQueue::Add).
//
// Not seen outside of this folder.
#ifndef TESSERA_COORDINATOR_SCHEDULER_TENANT_ACCOUNT_H_
#define TESSERA_COORDINATOR_SCHEDULER_TENANT_ACCOUNT_H_

#include <cstdint>
#include <set>
#include <vector>

#include "coordinator/requests/tenant_policy.h"
#include "coordinator/scheduler/sequence.h"

namespace tessera::coordinator {

// External synchronisation.
struct TenantAccount {
  TenantPolicy policy;
  bool configured = false;
  bool active = false;    // WaitingQueue counts it among those that have something
  int64_t num_seats = 0;  // of the waiting queue, that are this tenant's alone

  double virtual_time = 0;
  int64_t num_running = 0;
  int64_t running_tokens = 0;  // of running sequences, at their greatest length
  int64_t pending_tokens = 0;  // of running sequences, still to prefill
  // Running tokens that are in order though the quota is lower: what ran when it was
  // lowered, or a sequence that came before.
  int64_t tolerated_tokens = 0;
  uint64_t scheduled_tokens = 0;
  uint64_t preemptions = 0;
  std::set<Sequence*, RunsBefore> waiting;
  double held_blocks = 0;  // working space of SortForPreemption

  // Whether it waits for tokens of its own.
  bool backlogged() const { return !waiting.empty() || pending_tokens > 0; }
  bool idle() const { return waiting.empty() && num_running == 0; }

  // Virtual time once all that was admitted is prefilled: admissions count at once, or
  // one tenant would get every free slot until its tokens were scheduled.
  double admission_time() const {
    return virtual_time + static_cast<double>(pending_tokens) / policy.weight;
  }

  // Whether the quota lets the sequence run beside those that do. One that came before
  // the quota was lowered may be longer than it, and then runs alone.
  bool Allows(const Sequence& sequence) const {
    return policy.max_running_tokens == 0 || running_tokens == 0 ||
           running_tokens + sequence.max_length <= policy.max_running_tokens;
  }

  // The sequence starts to run with its first `planned` tokens computed.
  void Enter(const Sequence& sequence);
  // It stops running; called before its state is cleared.
  void Leave(const Sequence& sequence);
  // `count` tokens were scheduled, part of a prompt or not.
  void Charge(int64_t count, bool prefill);
};

// Order of prompts for the tokens of a step: priority, then the tenant that is furthest
// behind, then the prompt that has least to do.
struct PrefillsBefore {
  bool operator()(const Sequence* a, const Sequence* b) const;
};

// Puts those that lose their blocks first to the end: the worst priority, then the tenant
// that holds most blocks for its weight, then by RunsBefore. A pure function of what is
// held: every token that is generated brings the end of one of them nearer, so that
// sequences cannot preempt each other for ever.
void SortForPreemption(std::vector<Sequence*>* running);

}  // namespace tessera::coordinator

#endif  // TESSERA_COORDINATOR_SCHEDULER_TENANT_ACCOUNT_H_
