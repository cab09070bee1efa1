#include "coordinator/scheduler/scheduler.h"

#include <algorithm>
#include <optional>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"

#include "common/check.h"
#include "common/status.h"
#include "common/status_macros.h"
#include "coordinator/scheduler/block_claim.h"
#include "coordinator/scheduler/dp_rank.h"
#include "coordinator/scheduler/prefix_hash.h"
#include "coordinator/scheduler/scheduler_options_check.h"
#include "coordinator/scheduler/sequence.h"
#include "coordinator/scheduler/slot_shares.h"
#include "coordinator/scheduler/tenant_account.h"
#include "coordinator/scheduler/victims.h"
#include "coordinator/scheduler/waiting_queue.h"
#include "routing/dp_rank_policy.h"

namespace tessera::coordinator {
namespace {

constexpr int kMaxInFlight = 2;
// Sequences without room that one plan passes over.
constexpr size_t kMaxPassed = 4;

class GroupScheduler final : public Scheduler {
 public:
  GroupScheduler(const SchedulerOptions& options,
                 std::vector<std::unique_ptr<DpRank>> ranks)
      : options_(options),
        hash_(options.prefix_hash_key),
        ranks_(std::move(ranks)),
        waiting_(options) {}

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
  // The sequence that moves over for `front` (slot_shares.h); null if none does.
  Sequence* FindAboveShare(Sequence* front);
  void ExtendKeys(Sequence* sequence) const;
  // Shares the tokens that decodes left among running prompts and waiting sequences.
  void PlanPrefills(absl::Time now);
  // The best running prompt of all ranks; null if there is none.
  Sequence* BestPrompt() const;
  // Admits the sequence on the best rank; false if none has room for it.
  bool TryAdmit(Sequence* sequence);
  // Whether an attempt to admit `sequence` could end differently than the last one did.
  bool MayFit(const Sequence& sequence) const;
  bool AnyRoom() const;
  bool AnyFreeSlot() const;
  // The sequence to admit next: who holds the claim once it may fit, else the queue's.
  Sequence* First(absl::Time now) const;
  // Behind `first`, which does not fit: the next that may, beside its claim.
  Sequence* NextBehind(Sequence* first, absl::Time now) const;
  // Blocks that its tokens need.
  int64_t NumBlocks(const Sequence& sequence) const;
  int EmptiestRank() const;
  // Changes whenever a sequence that did not fit might.
  uint64_t ReleaseCount() const;
  const Sequence* Find(SequenceId id) const;

  const SchedulerOptions options_;
  const PrefixHash hash_;
  std::vector<std::unique_ptr<DpRank>> ranks_;
  absl::flat_hash_map<SequenceId, std::unique_ptr<Sequence>> sequences_;
  std::vector<std::unique_ptr<Sequence>> ending_;  // finished, with steps in flight
  WaitingQueue waiting_;

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

absl::Status GroupScheduler::Enqueue(SequenceSpec spec) {
  TenantAccount* tenant = waiting_.Account(spec.tenant);
  TESSERA_RETURN_IF_ERROR(waiting_.CheckRoom(*tenant));
  const int64_t prompt_length = std::ssize(spec.prompt);
  if (prompt_length < 1 || prompt_length >= options_.max_model_len ||
      spec.max_tokens < 1) {
    return InvalidArgumentF(
        "prompt of {} tokens and max_tokens {}, expected 1 to {} and at least 1",
        prompt_length, spec.max_tokens, options_.max_model_len - 1);
  }
  if (sequences_.contains(spec.id)) {
    return InvalidArgumentF("sequence {} exists", spec.id);
  }
  const int64_t max_length =
      prompt_length + std::min(spec.max_tokens, options_.max_model_len - prompt_length);
  const int64_t quota = tenant->policy.max_running_tokens;
  if (quota > 0 && max_length > quota) {
    return InvalidArgumentF(
        "prompt of {} tokens and max_tokens {}, expected together at most {}: so many "
        "may run of this tenant",
        prompt_length, spec.max_tokens, quota);
  }
  auto sequence = std::make_unique<Sequence>();
  sequence->tenant = tenant;
  sequence->tokens = std::move(spec.prompt);
  sequence->prompt_length = prompt_length;
  sequence->max_length = max_length;
  sequence->order = next_order_++;
  sequence->root = hash_.Root(options_.cache_key_prefix, spec.tenant, spec.cache_salt);
  sequence->spec = std::move(spec);
  sequence->spec.priority =
      std::max(sequence->spec.priority, tenant->policy.best_priority);
  earliest_deadline_ = std::min(earliest_deadline_, sequence->spec.deadline);
  waiting_.Add(sequence.get());
  sequences_.emplace(sequence->spec.id, std::move(sequence));
  return absl::OkStatus();
}

void GroupScheduler::Finish(SequenceId id) {
  const auto found = sequences_.find(id);
  if (found == sequences_.end()) {
    return;
  }
  std::unique_ptr<Sequence> sequence = std::move(found->second);
  sequences_.erase(found);
  sequence->finished = true;
  if (sequence->running()) {
    ranks_[static_cast<size_t>(sequence->dp_rank)]->Remove(sequence.get());
  } else {
    waiting_.Remove(sequence.get());
    claim_.Drop(*sequence);
  }
  if (sequence->steps_in_flight > 0) {
    ending_.push_back(std::move(sequence));
  }
}

std::vector<SequenceId> GroupScheduler::Expired(absl::Time now) const {
  std::vector<SequenceId> expired;
  if (now < earliest_deadline_) {
    return expired;
  }
  earliest_deadline_ = absl::InfiniteFuture();
  for (const auto& [id, sequence] : sequences_) {
    if (sequence->spec.deadline <= now) {
      expired.push_back(id);
    }
    earliest_deadline_ = std::min(earliest_deadline_, sequence->spec.deadline);
  }
  std::sort(expired.begin(), expired.end());
  return expired;
}

PlannedStep GroupScheduler::OpenStep() {
  TESSERA_CHECK_LT(num_in_flight_, kMaxInFlight);
  ++num_in_flight_;
  PlannedStep step;
  step.plans.resize(ranks_.size());
  for (size_t i = 0; i < ranks_.size(); ++i) {
    step.plans[i].epoch = epoch_;
    step.plans[i].step = next_step_;
    step.plans[i].placement_version = options_.placement_version;
    ranks_[i]->BeginPlan(&step.plans[i]);
  }
  ++next_step_;
  return step;
}

void GroupScheduler::CloseStep(PlannedStep* step) {
  for (const auto& rank : ranks_) {
    RankStepTotals totals = rank->EndPlan();
    step->masked.push_back(std::move(totals.masked));
    step->num_tokens += totals.num_tokens;
    step->num_prefill_tokens += totals.num_prefill_tokens;
    step->num_sequences += totals.num_sequences;
  }
}

PlannedStep GroupScheduler::Plan(absl::Time now) {
  PlannedStep step = OpenStep();
  std::vector<Sequence*> preempted;
  MakeRoom(now, &preempted);
  for (const auto& rank : ranks_) {
    rank->PlanDecodes(&preempted);
  }
  preemptions_ += preempted.size();
  for (Sequence* sequence : preempted) {
    ++sequence->tenant->preemptions;
    waiting_.Add(sequence);
  }
  PlanPrefills(now);
  CloseStep(&step);
  return step;
}

absl::StatusOr<PlannedStep> GroupScheduler::PlanProbe(int32_t token) {
  if (num_in_flight_ > 0) {
    return absl::FailedPreconditionError(
        fmt::format("probe with {} steps in flight", num_in_flight_));
  }
  for (size_t i = 0; i < ranks_.size(); ++i) {
    if (!ranks_[i]->CanProbe()) {
      return absl::FailedPreconditionError(
          fmt::format("probe without a free slot and block on dp rank {}", i));
    }
  }
  PlannedStep step = OpenStep();
  for (const auto& rank : ranks_) {
    rank->AdmitProbe(token);
  }
  CloseStep(&step);
  return step;
}

void GroupScheduler::MakeRoom(absl::Time now, std::vector<Sequence*>* preempted) {
  Sequence* front = waiting_.Front(now);
  if (front == nullptr) {
    return;
  }
  const Sequence* holder = claim_.holder();
  Sequence* victim = nullptr;
  if (holder != nullptr && holder->spec.priority <= front->spec.priority &&
      WaitingQueue::Admissible(*holder, now)) {
    victim = FindVictim(ranks_, *holder, &claim_);
  }
  if (victim == nullptr && !AnyFreeSlot() && front->steps_in_flight == 0) {
    ExtendKeys(front);
    victim = FindVictim(ranks_, *front, &claim_);
    victim = victim == nullptr ? FindAboveShare(front) : victim;
  }
  if (victim != nullptr) {
    ranks_[static_cast<size_t>(victim->dp_rank)]->Remove(victim);
    preempted->push_back(victim);
  }
}

Sequence* GroupScheduler::FindAboveShare(Sequence* front) {
  const SlotShares shares(std::ssize(ranks_) * ranks_.front()->num_slots(),
                          waiting_.busy_weight());
  if (!shares.Lacks(*front->tenant)) {
    return nullptr;
  }
  for (const auto& rank : ranks_) {
    Sequence* victim = shares.FindToMove(rank->running(), front->spec.priority);
    if (victim != nullptr && rank->HasBlocksFor(*front)) {
      return victim;
    }
  }
  return nullptr;
}

Sequence* GroupScheduler::BestPrompt() const {
  Sequence* best = nullptr;
  for (const auto& rank : ranks_) {
    Sequence* next = rank->NextPrefill();
    if (next != nullptr && (best == nullptr || PrefillsBefore()(next, best))) {
      best = next;
    }
  }
  return best;
}

void GroupScheduler::PlanPrefills(absl::Time now) {
  // The ranks' steps end together: decodes of one wait for prompts of another.
  const bool decoding = std::any_of(ranks_.begin(), ranks_.end(),
                                    [](const auto& rank) { return rank->decodes(); });
  for (const auto& rank : ranks_) {
    rank->BeginPrefills(decoding);
  }
  if (claim_.active() && !WaitingQueue::Admissible(*claim_.holder(), now)) {
    claim_.Drop(*claim_.holder());
  }
  bool admitting = true;
  for (;;) {
    Sequence* best = BestPrompt();
    Sequence* front = admitting && AnyRoom() ? First(now) : nullptr;
    if (front != nullptr && !MayFit(*front)) {
      front = NextBehind(front, now);
    }
    if (front != nullptr && (best == nullptr || PrefillsBefore()(front, best))) {
      // One that found no room may be overtaken, and is asked for no more.
      admitting = TryAdmit(front) || !MayFit(*front);
    } else if (best != nullptr) {
      ranks_[static_cast<size_t>(best->dp_rank)]->PlanPrefill(best);
    } else {
      break;
    }
  }
  for (const auto& rank : ranks_) {
    rank->FinishPrefills();
  }
}

Sequence* GroupScheduler::First(absl::Time now) const {
  Sequence* front = waiting_.Front(now);
  Sequence* holder = claim_.holder();
  // Its turn has come before; others were let by since then.
  return holder != nullptr && front != nullptr &&
                 holder->spec.priority <= front->spec.priority &&
                 WaitingQueue::Admissible(*holder, now) && MayFit(*holder)
             ? holder
             : front;
}

Sequence* GroupScheduler::NextBehind(Sequence* first, absl::Time now) const {
  // What a preempted sequence needs comes free with the steps in flight.
  if (!claim_.active() || first->steps_in_flight > 0) {
    return nullptr;
  }
  std::vector<Sequence*> passed = {first};
  while (passed.size() < kMaxPassed) {
    Sequence* next = waiting_.Front(now, passed);
    if (next == nullptr || MayFit(*next)) {
      return next;
    }
    passed.push_back(next);
  }
  return nullptr;
}

bool GroupScheduler::TryAdmit(Sequence* sequence) {
  ExtendKeys(sequence);
  std::vector<PrefixMatch> matches(ranks_.size());
  std::vector<routing::DpRankLoad> loads(ranks_.size());
  bool saw_all = true;
  for (size_t i = 0; i < ranks_.size(); ++i) {
    if (!ranks_[i]->has_room()) {
      saw_all = saw_all && !ranks_[i]->has_free_slot();
      continue;
    }
    matches[i] = ranks_[i]->Match(*sequence);
    const int64_t num_blocks = NumBlocks(*sequence) - std::ssize(matches[i].blocks);
    if (!ranks_[i]->HasTailRoom(matches[i]) ||
        !claim_.Allows(*sequence, static_cast<int>(i), num_blocks, ranks_[i]->running(),
                       options_.num_blocks)) {
      continue;
    }
    loads[i] = {.has_free_slot = true,
                .pending_tokens = ranks_[i]->pending_tokens(),
                .num_sequences = std::ssize(ranks_[i]->running()),
                .blocks_used = ranks_[i]->blocks().num_used(),
                .blocks_free = ranks_[i]->blocks_for_admission(matches[i]),
                .cached_tokens = std::ssize(matches[i].blocks) * options_.block_size};
  }
  const std::optional<int> rank = routing::PickDpRank(
      loads, {.num_tokens = sequence->num_tokens(), .block_size = options_.block_size});
  if (!rank.has_value()) {
    if (saw_all) {
      sequence->misfit = ReleaseCount();
      claim_.Take(sequence, EmptiestRank(), NumBlocks(*sequence));
    }
    return false;
  }
  claim_.Admitted(sequence, *rank);
  const auto idx = static_cast<size_t>(*rank);
  waiting_.Remove(sequence);
  const int64_t num_shortened = matches[idx].num_shortened;
  ranks_[idx]->Admit(sequence, std::move(matches[idx]));
  prefix_query_tokens_ += static_cast<uint64_t>(sequence->num_tokens());
  prefix_hit_tokens_ += static_cast<uint64_t>(loads[idx].cached_tokens);
  prefix_shortened_tokens_ += static_cast<uint64_t>(num_shortened * options_.block_size);
  return true;
}

void GroupScheduler::ExtendKeys(Sequence* sequence) const {
  if (options_.enable_prefix_caching) {
    hash_.ExtendAll(sequence->root, sequence->tokens, options_.block_size,
                    &sequence->keys);
  }
}

bool GroupScheduler::MayFit(const Sequence& sequence) const {
  // A preempted sequence waits for the tokens that plans in flight still bring it.
  return sequence.steps_in_flight == 0 && sequence.misfit != ReleaseCount();
}

bool GroupScheduler::AnyRoom() const {
  return std::any_of(ranks_.begin(), ranks_.end(),
                     [](const auto& rank) { return rank->has_room(); });
}

bool GroupScheduler::AnyFreeSlot() const {
  return std::any_of(ranks_.begin(), ranks_.end(),
                     [](const auto& rank) { return rank->has_free_slot(); });
}

int64_t GroupScheduler::NumBlocks(const Sequence& sequence) const {
  return (sequence.num_tokens() - 1) / options_.block_size + 1;
}

int GroupScheduler::EmptiestRank() const {
  const auto emptiest =
      std::max_element(ranks_.begin(), ranks_.end(), [](const auto& a, const auto& b) {
        return a->blocks().num_free() < b->blocks().num_free();
      });
  return static_cast<int>(emptiest - ranks_.begin());
}

uint64_t GroupScheduler::ReleaseCount() const {
  uint64_t count = claim_.num_drops();
  for (const auto& rank : ranks_) {
    count += rank->blocks().release_count();
  }
  return count;
}

bool GroupScheduler::has_work() const {
  for (const auto& rank : ranks_) {
    if (rank->has_work()) {
      return true;
    }
  }
  Sequence* front = AnyFreeSlot() ? First(absl::InfinitePast()) : nullptr;
  if (front != nullptr && !MayFit(*front)) {
    front = NextBehind(front, absl::InfinitePast());
  }
  return front != nullptr;
}

absl::StatusOr<std::vector<AcceptedToken>> GroupScheduler::Accept(
    std::span<const proto::StepResult> results) {
  if (results.size() != ranks_.size()) {
    return InternalF("{} results of a step, expected {}", results.size(), ranks_.size());
  }
  for (size_t i = 0; i < ranks_.size(); ++i) {
    TESSERA_RETURN_IF_ERROR(WithContext(ranks_[i]->CheckResult(epoch_, results[i]),
                                        fmt::format("dp rank {}", i)));
  }
  std::vector<AcceptedToken> accepted;
  for (size_t i = 0; i < ranks_.size(); ++i) {
    ranks_[i]->Accept(hash_, results[i], &accepted);
  }
  --num_in_flight_;
  std::erase_if(ending_,
                [](const auto& sequence) { return sequence->steps_in_flight == 0; });
  return accepted;
}

const Sequence* GroupScheduler::Find(SequenceId id) const {
  const auto found = sequences_.find(id);
  return found == sequences_.end() ? nullptr : found->second.get();
}

int64_t GroupScheduler::cached_tokens(SequenceId id) const {
  const Sequence* sequence = Find(id);
  return sequence == nullptr ? 0 : sequence->cached_tokens;
}

int64_t GroupScheduler::host_cached_tokens(SequenceId id) const {
  const Sequence* sequence = Find(id);
  return sequence == nullptr ? 0 : sequence->host_cached_tokens;
}

bool GroupScheduler::started(SequenceId id) const {
  const Sequence* sequence = Find(id);
  return sequence != nullptr && sequence->started;
}

SequenceProgress GroupScheduler::progress(SequenceId id) const {
  const Sequence* sequence = Find(id);
  return sequence == nullptr ? SequenceProgress()
                             : SequenceProgress{.dp_rank = sequence->dp_rank,
                                                .computed_tokens = sequence->computed};
}

void GroupScheduler::StartEpoch(uint64_t epoch) {
  for (const auto& rank : ranks_) {
    const std::vector<Sequence*> running = rank->running();
    for (Sequence* sequence : running) {
      sequence->tenant->Leave(*sequence);
      sequence->LeaveRank();
      waiting_.Add(sequence);
    }
    rank->Reset();
  }
  for (const auto& [id, sequence] : sequences_) {
    sequence->steps_in_flight = 0;
    sequence->unaccepted_samples = 0;
    sequence->misfit.reset();
  }
  ending_.clear();
  claim_ = BlockClaim();
  epoch_ = epoch;
  next_step_ = 1;
  num_in_flight_ = 0;
}

SchedulerStats GroupScheduler::stats() const {
  SchedulerStats stats;
  stats.num_waiting = waiting_.size();
  stats.waiting_tokens = waiting_.num_tokens();
  for (const auto& rank : ranks_) {
    stats.num_running += std::ssize(rank->running());
    stats.blocks_total += rank->blocks().num_blocks();
    stats.blocks_used += rank->blocks().num_used();
    stats.blocks_cached += rank->blocks().num_cached();
    stats.tail_blocks_total += rank->blocks().tail_pool().num_blocks();
    stats.tail_blocks_used += rank->blocks().tail_pool().num_used();
    stats.tail_blocks_cached += rank->blocks().tail_pool().num_cached();
    const HostTier& host = rank->blocks().host();
    stats.host_blocks_total += host.blocks().num_blocks();
    stats.host_blocks_cached += host.blocks().num_cached() + host.blocks().num_used();
    stats.host_tail_blocks_total += host.tails().num_blocks();
    stats.host_tail_blocks_cached += host.tails().num_cached() + host.tails().num_used();
    stats.tiers.Add(rank->tier_totals());
  }
  stats.prefix_query_tokens = prefix_query_tokens_;
  stats.prefix_hit_tokens = prefix_hit_tokens_;
  stats.prefix_shortened_tokens = prefix_shortened_tokens_;
  stats.preemptions = preemptions_;
  stats.tenants = waiting_.Report();
  return stats;
}

absl::Status GroupScheduler::CheckInvariants() const {
  std::vector<const Sequence*> running;
  for (size_t i = 0; i < ranks_.size(); ++i) {
    TESSERA_RETURN_IF_ERROR(
        WithContext(ranks_[i]->CheckInvariants(), fmt::format("dp rank {}", i)));
    running.insert(running.end(), ranks_[i]->running().begin(),
                   ranks_[i]->running().end());
  }
  if (running.size() + static_cast<size_t>(waiting_.size()) != sequences_.size()) {
    return InternalF("{} running and {} waiting sequences, expected {} together",
                     running.size(), waiting_.size(), sequences_.size());
  }
  return waiting_.CheckInvariants(running);
}

}  // namespace

void TierTotals::Add(const TierTotals& other) {
  host_hit_tokens += other.host_hit_tokens;
  offloaded_blocks += other.offloaded_blocks;
  restored_blocks += other.restored_blocks;
  resumed_tokens += other.resumed_tokens;
  recomputed_tokens += other.recomputed_tokens;
}

absl::StatusOr<std::unique_ptr<Scheduler>> Scheduler::Create(
    const SchedulerOptions& options) {
  TESSERA_RETURN_IF_ERROR(CheckSchedulerOptions(options));
  std::vector<std::unique_ptr<DpRank>> ranks;
  for (int64_t i = 0; i < options.num_dp_ranks; ++i) {
    TESSERA_ASSIGN_OR_RETURN(std::unique_ptr<DpRank> rank,
                             DpRank::Create(options, static_cast<int>(i)));
    ranks.push_back(std::move(rank));
  }
  return std::unique_ptr<Scheduler>(
      std::make_unique<GroupScheduler>(options, std::move(ranks)));
}

}  // namespace tessera::coordinator
