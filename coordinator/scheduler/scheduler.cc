#include "coordinator/scheduler/scheduler.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "common/check.h"
#include "common/status.h"
#include "common/status_macros.h"
#include "coordinator/scheduler/group_scheduler.h"
#include "coordinator/scheduler/tenant_account.h"
#include "proto/decode_rows.h"

namespace tessera::coordinator {
namespace {

constexpr int kMaxInFlight = 2;

}  // namespace

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
  EndDiskWait(sequence.get());
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
  const uint32_t decode_rows = proto::DecodeRowsOf(step->plans);
  for (proto::StepPlan& plan : step->plans) {
    plan.decode_rows = decode_rows;
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
  AdvanceDiskWaits(now);
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
      admitting = TryAdmit(front, now) || !MayFit(*front);
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

void GroupScheduler::ExtendKeys(Sequence* sequence) const {
  if (options_.enable_prefix_caching) {
    hash_.ExtendAll(sequence->root, sequence->tokens, options_.block_size,
                    &sequence->keys);
  }
}

bool GroupScheduler::has_work() const {
  if (hand_overs_.has_work(ranks_) || !disk_waits_.empty()) {
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

int64_t GroupScheduler::disk_cached_tokens(SequenceId id) const {
  const Sequence* sequence = Find(id);
  return sequence == nullptr ? 0 : sequence->disk_cached_tokens;
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
    sequence->disk_wait.reset();
    sequence->asked_disk = false;
  }
  disk_waits_.clear();
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
  stats.tiers.disk_waits = num_disk_waits_;
  stats.tiers.given_up_disk_waits = num_given_up_disk_waits_;
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
  for (const Sequence* sequence : disk_waits_) {
    if (sequence->running() || !sequence->disk_wait.has_value()) {
      return InternalF("sequence {} waits for a disk, running: {}", sequence->spec.id,
                       sequence->running());
    }
  }
  TESSERA_RETURN_IF_ERROR(hand_overs_.CheckInvariants(ranks_));
  return waiting_.CheckInvariants(running);
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
