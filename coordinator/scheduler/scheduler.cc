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
#include "coordinator/scheduler/hand_over.h"
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
// Sequences without room that one plan passes over; more where they wait for ranks of one
// role and those behind them for the other.
constexpr size_t kMaxPassed = 4;
constexpr size_t kMaxPassedWithRoles = 16;

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
  bool TryAdmit(Sequence* sequence);
  // Whether an attempt to admit `sequence` could end differently than the last one did.
  bool MayFit(const Sequence& sequence) const;
  bool AnyRoom() const;
  bool AnyFreeSlot() const;
  bool AnyFull() const;
  // Names transfers, and lets what was handed over wait for its decode rank.
  void PlanTransfers(PlannedStep* step);
  size_t max_passed() const {
    return hand_overs_.enabled() ? kMaxPassedWithRoles : kMaxPassed;
  }
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

absl::Status GroupScheduler::Enqueue(SequenceSpec spec) {
  TenantAccount* tenant = waiting_.Account(spec.tenant);
  TESSERA_RETURN_IF_ERROR(waiting_.CheckRoom(*tenant));
  if (sequences_.contains(spec.id)) {
    return InvalidArgumentF("sequence {} exists", spec.id);
  }
  TESSERA_ASSIGN_OR_RETURN(
      const int64_t max_length,
      CheckLength(options_, spec, tenant->policy.max_running_tokens));
  const int64_t prompt_length = std::ssize(spec.prompt);
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
  hand_overs_.Drop(ranks_, sequence.get());
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
  PlanTransfers(&step);
  std::vector<Sequence*> preempted;
  MakeRoom(now, &preempted);
  for (const auto& rank : ranks_) {
    rank->PlanDecodes(&preempted);
  }
  preemptions_ += preempted.size();
  for (Sequence* sequence : preempted) {
    ++sequence->tenant->preemptions;
    hand_overs_.Drop(ranks_, sequence);
    waiting_.Add(sequence);
  }
  PlanPrefills(now);
  CloseStep(&step);
  return step;
}

void GroupScheduler::PlanTransfers(PlannedStep* step) {
  std::vector<Sequence*> ended;
  hand_overs_.Transfer(ranks_, step->plans, &ended);
  for (Sequence* sequence : ended) {
    ranks_[static_cast<size_t>(sequence->dp_rank)]->Remove(sequence);
    hand_overs_.Drop(ranks_, sequence);
    sequence->lost_tokens = 0;  // They are where it goes.
    waiting_.Add(sequence);
  }
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
    victim = FindVictim(hand_overs_.Places(ranks_, *holder), *holder, &claim_);
  }
  if (victim == nullptr && front->steps_in_flight == 0 &&
      (hand_overs_.enabled() ? AnyFull() : !AnyFreeSlot())) {
    ExtendKeys(front);
    const std::vector<DpRank*> places = hand_overs_.Places(ranks_, *front);
    if (std::none_of(places.begin(), places.end(),
                     [](const DpRank* rank) { return rank->has_free_slot(); })) {
      victim = FindVictim(places, *front, &claim_);
      const SlotShares shares(std::ssize(ranks_) * ranks_.front()->num_slots(),
                              waiting_.busy_weight());
      victim = victim == nullptr ? FindAboveShare(places, *front, shares) : victim;
    }
  }
  if (victim != nullptr) {
    ranks_[static_cast<size_t>(victim->dp_rank)]->Remove(victim);
    preempted->push_back(victim);
  }
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
  passed_.clear();
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
  if ((!claim_.active() && !hand_overs_.enabled()) || first->steps_in_flight > 0) {
    return nullptr;
  }
  std::vector<Sequence*> passed = {first};
  while (passed.size() < max_passed()) {
    Sequence* next = waiting_.Front(now, passed);
    if (next == nullptr) {
      break;
    }
    if (MayFit(*next)) {
      return next;
    }
    passed.push_back(next);
  }
  // Others may wait for the room that these take up where they have arrived.
  return hand_overs_.FindArrived([&](const Sequence& sequence) {
    return WaitingQueue::Admissible(sequence, now) && MayFit(sequence);
  });
}

bool GroupScheduler::TryAdmit(Sequence* sequence) {
  ExtendKeys(sequence);
  const std::vector<DpRank*> places = hand_overs_.Places(ranks_, *sequence);
  std::vector<PrefixMatch> matches(ranks_.size());
  std::vector<routing::DpRankLoad> loads(ranks_.size());
  bool saw_all = true;
  for (const DpRank* place : places) {
    const auto i = static_cast<size_t>(place->dp_rank());
    if (!ranks_[i]->has_room()) {
      saw_all = saw_all && !ranks_[i]->has_free_slot();
      continue;
    }
    matches[i] = ranks_[i]->Match(*sequence);
    const int64_t num_blocks =
        sequence->num_blocks(options_.block_size) - std::ssize(matches[i].blocks);
    if (!ranks_[i]->HasTailRoom(matches[i]) ||
        !claim_.Allows(*sequence, static_cast<int>(i), num_blocks, ranks_[i]->running(),
                       options_.num_blocks)) {
      continue;
    }
    loads[i] = place->LoadFor(matches[i]);
  }
  const std::optional<int> rank = routing::PickDpRank(
      loads, {.num_tokens = sequence->num_tokens(), .block_size = options_.block_size});
  if (!rank.has_value()) {
    if (saw_all) {
      if (claim_.HeldBy(*sequence) && !IsAmong(places, claim_.dp_rank())) {
        claim_.Drop(*sequence);  // It has to go elsewhere now.
      }
      sequence->misfit = ReleaseCount();
      if (!places.empty()) {
        claim_.Take(sequence, EmptiestRank(places),
                    sequence->num_blocks(options_.block_size));
      }
    } else if (hand_overs_.enabled() && passed_.size() < max_passed()) {
      passed_.push_back(sequence);
    }
    return false;
  }
  if (hand_overs_.Prefills(*rank)) {
    hand_overs_.Begin(ranks_, sequence);
  }
  claim_.Admitted(sequence, *rank);
  const auto idx = static_cast<size_t>(*rank);
  waiting_.Remove(sequence);
  const int64_t num_shortened = matches[idx].num_shortened;
  ranks_[idx]->Admit(sequence, std::move(matches[idx]));
  if (sequence->handed_over) {
    // It was counted where it was prefilled.
    hand_overs_.Admitted(sequence, loads[idx].cached_tokens);
    return true;
  }
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
  return sequence.steps_in_flight == 0 && sequence.misfit != ReleaseCount() &&
         std::find(passed_.begin(), passed_.end(), &sequence) == passed_.end();
}

bool GroupScheduler::AnyRoom() const {
  return std::any_of(ranks_.begin(), ranks_.end(),
                     [](const auto& rank) { return rank->has_room(); });
}

bool GroupScheduler::AnyFull() const {
  const auto full = [](const auto& rank) { return !rank->has_free_slot(); };
  return std::any_of(ranks_.begin(), ranks_.end(), full);
}

bool GroupScheduler::AnyFreeSlot() const {
  return std::any_of(ranks_.begin(), ranks_.end(),
                     [](const auto& rank) { return rank->has_free_slot(); });
}

int GroupScheduler::EmptiestRank(std::span<DpRank* const> places) {
  const auto emptiest = std::max_element(
      places.begin(), places.end(), [](const DpRank* a, const DpRank* b) {
        return a->blocks().num_free() < b->blocks().num_free();
      });
  return (*emptiest)->dp_rank();
}

uint64_t GroupScheduler::ReleaseCount() const {
  uint64_t count = claim_.num_drops() + hand_overs_.num_ends();
  for (const auto& rank : ranks_) {
    count += rank->blocks().release_count();
  }
  return count;
}

bool GroupScheduler::has_work() const {
  if (hand_overs_.has_work(ranks_)) {
    return true;
  }
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
      HandOvers::Forget(sequence);
      waiting_.Add(sequence);
    }
    rank->Reset();
  }
  for (const auto& [id, sequence] : sequences_) {
    sequence->steps_in_flight = 0;
    sequence->unaccepted_samples = 0;
    sequence->misfit.reset();
    sequence->handed_over = false;
  }
  ending_.clear();
  hand_overs_.Reset();
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
    rank->AddTo(&stats);
  }
  stats.prefix_query_tokens = prefix_query_tokens_;
  stats.prefix_hit_tokens = prefix_hit_tokens_;
  stats.prefix_shortened_tokens = prefix_shortened_tokens_;
  stats.preemptions = preemptions_;
  stats.hand_overs = hand_overs_.totals();
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
  TESSERA_RETURN_IF_ERROR(hand_overs_.CheckInvariants(ranks_));
  return waiting_.CheckInvariants(running);
}

}  // namespace

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
