// WaitingQueue: the sequences that wait for a rank, and who is next. It keeps the
// accounts of all tenants that have sequences, and of all configured ones.
//
// Who is next: the best priority; among its tenants the one with the least virtual time
// (tenant_account.h) that its quota does not hold back, of equals the one that runs least
// for its weight; of its sequences the one with the earliest deadline, then the first
// that came.
//
// Who may wait: `max_waiting` sequences. Half of these places are the configured
// tenants' alone, in the ratio of their weights; the others are common. Of the common
// places a tenant that is not alone takes no more than it leaves free, so that nobody
// finds the queue filled by one other.
#ifndef TESSERA_COORDINATOR_SCHEDULER_WAITING_QUEUE_H_
#define TESSERA_COORDINATOR_SCHEDULER_WAITING_QUEUE_H_

#include <cstdint>
#include <functional>
#include <map>
#include <span>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"

#include "coordinator/requests/tenant_policy.h"
#include "coordinator/scheduler/sequence.h"
#include "coordinator/scheduler/tenant_account.h"

namespace tessera::coordinator {

// External synchronisation. Sequences are borrowed while they wait.
class WaitingQueue {
 public:
  // Of `options` the tenants and `max_waiting` matter; the Scheduler has checked them.
  explicit WaitingQueue(const SchedulerOptions& options);

  // The grants in force from now on; the Scheduler has checked them. What runs beyond a
  // lower quota goes on.
  void SetTenants(std::span<const TenantPolicy> tenants, const TenantPolicy& others);

  // The account of a tenant, made with the others' grants where it is not configured.
  // Valid as long as a sequence points to it, and until the next call otherwise.
  TenantAccount* Account(const std::string& name);

  // kResourceExhausted: the tenant may have no further sequence waiting.
  absl::Status CheckRoom(const TenantAccount& tenant) const;

  // The sequence's tenant is set. Sequences that ran before are always taken.
  void Add(Sequence* sequence);
  void Remove(Sequence* sequence);

  // The sequence to admit next, of those that can still be planned, whose deadline is
  // after `now`, that wait for no disk and that are not among `passed`; null if there is
  // none.
  Sequence* Front(absl::Time now, std::span<Sequence* const> passed = {}) const;

  // Whether a waiting sequence may run at all: it can still be planned, its deadline is
  // after `now`, it waits for no disk, and its tenant's quota has room.
  static bool Admissible(const Sequence& sequence, absl::Time now) {
    return sequence.plannable() && sequence.spec.deadline > now &&
           !sequence.disk_wait.has_value() && sequence.tenant->Allows(sequence);
  }

  int64_t size() const { return size_; }
  bool empty() const { return size_ == 0; }
  // Tokens that the waiting sequences have.
  int64_t num_tokens() const { return num_tokens_; }

  // The weights of all tenants that have sequences, waiting or running.
  double busy_weight() const;

  // Of the first kMaxReportedTenants: those of the constructor's list in its order,
  // whoever is configured now, then those that came later.
  std::vector<TenantStats> Report() const;

  // Recounts everything, `running` included; kInternal names the first difference.
  absl::Status CheckInvariants(const std::vector<const Sequence*>& running) const;

 private:
  using Accounts = std::map<std::string, TenantAccount, std::less<>>;

  // Places of the common part that are taken.
  static int64_t CommonOf(const TenantAccount& tenant);
  // Forgets tenants that nobody configured and that have nothing.
  void DropIdle();
  // The virtual time from which a tenant without work starts.
  double StartTime();
  // Takes tenants that have nothing out of `active_`.
  void RetireIdle();

  const int64_t max_waiting_;
  TenantPolicy others_;
  int64_t num_common_ = 0;    // places that are nobody's alone
  int64_t common_taken_ = 0;  // of them
  Accounts accounts_;
  std::vector<TenantAccount*> configured_;  // first, for ever, those of the constructor
  size_t num_lasting_ = 0;                  // of them
  std::vector<TenantAccount*> waiting_tenants_;  // those with a waiting sequence
  std::vector<TenantAccount*> active_;  // those with a sequence, and some that had one
  double latest_ = 0;                   // greatest virtual time of the others
  int64_t size_ = 0;
  int64_t num_tokens_ = 0;
};

}  // namespace tessera::coordinator

#endif  // TESSERA_COORDINATOR_SCHEDULER_WAITING_QUEUE_H_
