// GroupScheduler: the Scheduler of one group of ranks. scheduler.cc has the life of
// sequences and steps, admission.cc which waiting sequence gets a place and where.
#ifndef TESSERA_COORDINATOR_SCHEDULER_GROUP_SCHEDULER_H_
#define TESSERA_COORDINATOR_SCHEDULER_GROUP_SCHEDULER_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"

#include "common/status_macros.h"
#include "coordinator/scheduler/block_claim.h"
#include "coordinator/scheduler/dp_rank.h"
#include "coordinator/scheduler/hand_over.h"
#include "coordinator/scheduler/prefix_hash.h"
#include "coordinator/scheduler/scheduler.h"
#include "coordinator/scheduler/scheduler_options_check.h"
#include "coordinator/scheduler/sequence.h"
#include "coordinator/scheduler/waiting_queue.h"

namespace tessera::coordinator {

// External synchronisation, as Scheduler.
class GroupScheduler final : public Scheduler {
 public:
  GroupScheduler(const SchedulerOptions& options,
                 std::vector<std::unique_ptr<DpRank>> ranks)
      : options_(options),
        hash_(options.prefix_hash_key),
        ranks_(std::move(ranks)),
        waiting_(options),
        hand_overs_(options) {}

  absl::Status SetTenants(std::span<const TenantPolicy> tenants,
                          const TenantPolicy& others) override {
    TESSERA_RETURN_IF_ERROR(CheckTenants(tenants, others));
    waiting_.SetTenants(tenants, others);
    return absl::OkStatus();
  }
  absl::Status Enqueue(SequenceSpec spec) override;
  void Finish(SequenceId id) override;
  std::vector<SequenceId> Expired(absl::Time now) const override;
  PlannedStep Plan(absl::Time now) override;
  bool has_work() const override;
  absl::StatusOr<PlannedStep> PlanProbe(int32_t token) override;
  int num_in_flight() const override { return num_in_flight_; }
  absl::StatusOr<std::vector<AcceptedToken>> Accept(
      std::span<const proto::StepResult> results) override;
  int64_t cached_tokens(SequenceId id) const override;
  int64_t host_cached_tokens(SequenceId id) const override;
  int64_t disk_cached_tokens(SequenceId id) const override;
  bool started(SequenceId id) const override;
  SequenceProgress progress(SequenceId id) const override;
  void StartEpoch(uint64_t epoch) override;
  SchedulerStats stats() const override;
  absl::Status CheckInvariants() const override;

 private:
  PlannedStep OpenStep();
  void CloseStep(PlannedStep* step);
  // Where the best waiting sequence finds no place, takes one from a sequence of a worse
  // priority, or a slot from a tenant above its share, which no work of this plan names
  // yet.
  void MakeRoom(absl::Time now, std::vector<Sequence*>* preempted);
  void ExtendKeys(Sequence* sequence) const;
  // Shares the tokens that decodes left among running prompts and waiting sequences.
  void PlanPrefills(absl::Time now);
  // The best running prompt of all ranks; null if there is none.
  Sequence* BestPrompt() const;
  // Admits the sequence on the best rank; false if none has room for it.
  bool TryAdmit(Sequence* sequence, absl::Time now);
  // The sequence, which could be admitted on the rank, waits for what of its prefix the
  // disk there has; false: nothing can be had from it.
  bool AwaitDisk(Sequence* sequence, int dp_rank, DiskPrefix prefix, absl::Time now);
  // Names what those that wait want next, and ends waits that are over.
  void AdvanceDiskWaits(absl::Time now);
  void EndDiskWait(Sequence* sequence);
  // Whether an attempt to admit `sequence` could end differently than the last one did.
  bool MayFit(const Sequence& sequence) const;
  bool AnyRoom() const;
  bool AnyFreeSlot() const;
  bool AnyFull() const;
  // Names transfers, and lets what was handed over wait for its decode rank.
  void PlanTransfers(PlannedStep* step);
  // Sequences without room that one plan passes over; more where they wait for ranks of
  // one role and those behind them for the other.
  size_t max_passed() const { return hand_overs_.enabled() ? 16 : 4; }
  // The sequence to admit next: who holds the claim once it may fit, else the queue's.
  Sequence* First(absl::Time now) const;
  // Behind `first`, which does not fit: the next that may, beside its claim.
  Sequence* NextBehind(Sequence* first, absl::Time now) const;
  static int EmptiestRank(std::span<DpRank* const> places);
  // Changes whenever a sequence that did not fit might.
  uint64_t ReleaseCount() const;
  const Sequence* Find(SequenceId id) const;

  const SchedulerOptions options_;
  const PrefixHash hash_;
  std::vector<std::unique_ptr<DpRank>> ranks_;
  absl::flat_hash_map<SequenceId, std::unique_ptr<Sequence>> sequences_;
  std::vector<std::unique_ptr<Sequence>> ending_;  // finished, with steps in flight
  WaitingQueue waiting_;
  HandOvers hand_overs_;
  std::vector<Sequence*> disk_waits_;  // in the order of asking
  uint64_t num_disk_waits_ = 0;
  uint64_t num_given_up_disk_waits_ = 0;
  // With roles: sequences whose ranks have no room in the plan under construction.
  std::vector<Sequence*> passed_;

  uint64_t epoch_ = 1;
  uint64_t next_step_ = 1;
  int num_in_flight_ = 0;
  uint64_t next_order_ = 0;
  BlockClaim claim_;
  // No live sequence's deadline is earlier; Expired makes it exact.
  mutable absl::Time earliest_deadline_ = absl::InfiniteFuture();
  uint64_t prefix_query_tokens_ = 0;
  uint64_t prefix_hit_tokens_ = 0;
  uint64_t prefix_shortened_tokens_ = 0;
  uint64_t preemptions_ = 0;
};

}  // namespace tessera::coordinator

#endif  // TESSERA_COORDINATOR_SCHEDULER_GROUP_SCHEDULER_H_
