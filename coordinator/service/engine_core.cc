#include "coordinator/service/engine_core.h"

#include <algorithm>
#include <utility>

#include "common/check.h"
#include "common/counter_rng.h"
#include "common/log.h"
#include "common/status.h"
#include "common/status_macros.h"

namespace tessera::coordinator {
namespace {

// While requests wait for a group, their deadlines are looked at so often.
constexpr absl::Duration kDeadlineCheck = absl::Milliseconds(50);

// Every rank of a TP group verifies the same drafts; its first one counts.
DraftObservation DraftsOf(const std::vector<proto::StepCounters>& counters, int64_t tp) {
  DraftObservation drafts;
  for (size_t rank = 0; rank < counters.size(); rank += static_cast<size_t>(tp)) {
    drafts.num_drafts += counters[rank].num_drafts;
    drafts.num_draft_tokens += counters[rank].num_draft_tokens;
    for (size_t i = 0; i < proto::kMaxDrafts; ++i) {
      drafts.accepted[i] += counters[rank].accepted_drafts[i];
    }
  }
  return drafts;
}

std::string_view Text(const absl::Status& status) {
  return {status.message().data(), status.message().size()};
}

// Whether another attempt would end the same way: the model or the options are wrong.
bool IsPermanent(const absl::Status& status) {
  return absl::IsInvalidArgument(status) || absl::IsUnimplemented(status) ||
         absl::IsNotFound(status) || absl::IsDataLoss(status);
}

}  // namespace

absl::StatusOr<std::unique_ptr<EngineCore>> EngineCore::Create(
    const EngineOptions& options, GroupProvider* provider,
    const model::Tokenizer* tokenizer, Clock* clock, EngineObserver* observer) {
  if (options.tp < 1 || options.step_timeout <= absl::ZeroDuration() ||
      options.probe_interval <= absl::ZeroDuration() ||
      options.reform_pause <= absl::ZeroDuration() || options.probe_token < 0 ||
      options.expert_report_period <= absl::ZeroDuration() ||
      options.num_expert_counts < 0) {
    return InvalidArgumentF("tp {} or a duration or the probe token {} cannot work",
                            options.tp, options.probe_token);
  }
  TESSERA_ASSIGN_OR_RETURN(std::unique_ptr<Scheduler> scheduler,
                           Scheduler::Create(options.scheduler));
  return std::unique_ptr<EngineCore>(new EngineCore(
      options, std::move(scheduler), provider, tokenizer, clock, observer));
}

EngineCore::EngineCore(const EngineOptions& options, std::unique_ptr<Scheduler> scheduler,
                       GroupProvider* provider, const model::Tokenizer* tokenizer,
                       Clock* clock, EngineObserver* observer)
    : options_(options),
      scheduler_(std::move(scheduler)),
      provider_(provider),
      clock_(clock),
      observer_(observer != nullptr ? observer : &no_observer_),
      live_(tokenizer, scheduler_.get(), observer_),
      expert_reports_(options.num_expert_counts,
                      static_cast<size_t>(options.scheduler.num_dp_ranks),
                      options.expert_report_period) {
  UpdateSnapshot();
}

void EngineCore::Submit(ValidatedRequest request, std::shared_ptr<RequestSink> sink) {
  live_.Add(std::move(request), std::move(sink), clock_->Now());
  UpdateSnapshot();
}

void EngineCore::Cancel(const std::string& request_id) {
  live_.End(request_id, absl::CancelledError("cancelled by the client"), clock_->Now());
  UpdateSnapshot();
}

void EngineCore::SetTenants(std::span<const TenantPolicy> tenants,
                            const TenantPolicy& others) {
  TESSERA_CHECK(scheduler_->SetTenants(tenants, others).ok());
}

void EngineCore::EndAll(const absl::Status& reason) {
  live_.EndAll(reason, clock_->Now());
  UpdateSnapshot();
}

std::optional<uint64_t> EngineCore::TakeFormRequest() {
  if (state_ != GroupState::kDown || clock_->Now() < next_form_) {
    return std::nullopt;
  }
  state_ = GroupState::kForming;
  UpdateSnapshot();
  return epoch_;
}

void EngineCore::FormFinished(uint64_t epoch, const absl::Status& status,
                              RankExecutors executors) {
  if (state_ != GroupState::kForming || epoch != epoch_) {
    return;
  }
  absl::Status failure = status;
  if (status.ok()) {
    auto group = RankGroup::Create(std::move(executors), options_.scheduler.num_dp_ranks,
                                   options_.tp);
    failure = group.status();
    if (group.ok()) {
      group_ = *std::move(group);
    }
  }
  if (!failure.ok()) {
    log::Warning("engine", "the group could not be formed",
                 {{"epoch", epoch_}, {"reason", Text(failure)}});
    ++epoch_;
    PauseBeforeForming();
    if (!was_up_ && IsPermanent(failure)) {
      next_form_ = absl::InfiniteFuture();
      snapshot_.fatal = failure;
    }
    UpdateSnapshot();
    return;
  }
  scheduler_->StartEpoch(epoch_);
  in_flight_.clear();
  state_ = GroupState::kProbing;
  UpdateSnapshot();
}

bool EngineCore::Advance() {
  EndFailedRequests();
  EndDue(clock_->Now());
  bool busy = false;
  if (group_ != nullptr) {
    const absl::StatusOr<bool> turn = Turn();
    if (turn.ok()) {
      busy = *turn;
    } else {
      FailGroup(turn.status());
      busy = true;
    }
  }
  UpdateSnapshot();
  return busy;
}

void EngineCore::EndDue(absl::Time now) {
  for (const SequenceId sequence : scheduler_->Expired(now)) {
    live_.EndSequence(sequence,
                      absl::DeadlineExceededError("the request's deadline passed"), now);
  }
  if (now >= drain_deadline_ && live_.size() > 0) {
    live_.EndAll(absl::UnavailableError("the server is shutting down"), now);
  }
}

absl::StatusOr<bool> EngineCore::Turn() {
  if (state_ == GroupState::kProbing) {
    TESSERA_RETURN_IF_ERROR(WithContext(RunProbe(), "first step"));
    state_ = GroupState::kUp;
    was_up_ = true;
    failures_in_row_ = 0;
    log::Info("engine", "the group is ready", {{"epoch", epoch_}});
    observer_->OnGroupReady(epoch_);
    return true;
  }
  TESSERA_RETURN_IF_ERROR(provider_->CheckGroup(epoch_));
  bool busy = false;
  if (scheduler_->num_in_flight() < proto::StepExecutor::kMaxInFlight &&
      scheduler_->has_work()) {
    TESSERA_RETURN_IF_ERROR(PlanStep());
    busy = true;
  }
  const bool ahead = scheduler_->num_in_flight() == proto::StepExecutor::kMaxInFlight;
  if (ahead || (scheduler_->num_in_flight() > 0 && !scheduler_->has_work())) {
    TESSERA_RETURN_IF_ERROR(FinishStep());
    return true;
  }
  if (!busy && scheduler_->num_in_flight() == 0 &&
      clock_->Now() >= snapshot_.last_step + options_.probe_interval) {
    TESSERA_RETURN_IF_ERROR(WithContext(RunProbe(), "probe"));
    return true;
  }
  return busy;
}

absl::Status EngineCore::PlanStep() {
  const absl::Time started = clock_->Now();
  PlannedStep step = scheduler_->Plan(started);
  if (!step.plans.empty() && step.num_prefill_tokens > 0) {
    live_.NoteStarts(started);
  }
  return SubmitStep(std::move(step), started, /*probe=*/false);
}

absl::Status EngineCore::RunProbe() {
  const absl::Time started = clock_->Now();
  TESSERA_ASSIGN_OR_RETURN(PlannedStep step, scheduler_->PlanProbe(options_.probe_token));
  TESSERA_RETURN_IF_ERROR(SubmitStep(std::move(step), started, /*probe=*/true));
  return FinishStep();
}

absl::Status EngineCore::SubmitStep(PlannedStep step, absl::Time started, bool probe) {
  const absl::Time now = clock_->Now();
  std::vector<size_t> reports = expert_reports_.Ask(probe, now, step.plans);
  in_flight_.push_back({.submitted = now,
                        .plan_time = now - started,
                        .num_tokens = step.num_tokens,
                        .num_prefill_tokens = step.num_prefill_tokens,
                        .num_sequences = step.num_sequences,
                        .probe = probe,
                        .step = step.plans.front().step,
                        .reports = std::move(reports),
                        .masked = std::move(step.masked)});
  TESSERA_RETURN_IF_ERROR(group_->Submit(std::move(step)));
  return in_flight_.size() == 1 ? SendMasks() : absl::OkStatus();
}

absl::Status EngineCore::SendMasks() {
  if (in_flight_.empty()) {
    return absl::OkStatus();
  }
  StepInFlight& step = in_flight_.front();
  std::vector<std::vector<proto::TokenMask>> masks(step.masked.size());
  bool any = false;
  for (size_t rank = 0; rank < step.masked.size(); ++rank) {
    for (const MaskedWork& work : step.masked[rank]) {
      any = true;
      masks[rank].push_back(
          {.slot = work.slot, .words = live_.NextMask(work.sequence, clock_->Now())});
    }
  }
  step.masked.clear();
  return any ? group_->SubmitLate(epoch_, step.step, std::move(masks)) : absl::OkStatus();
}

absl::Status EngineCore::FinishStep() {
  StepInFlight step = in_flight_.front();
  in_flight_.pop_front();
  // A step planned ahead begins when the one before it ends.
  step.submitted = std::max(step.submitted, snapshot_.last_step);
  TESSERA_ASSIGN_OR_RETURN(const RankGroup::StepOutcome outcome,
                           group_->Wait(step.submitted + options_.step_timeout));
  const absl::Time finished = clock_->Now();
  TESSERA_RETURN_IF_ERROR(expert_reports_.Check(step.reports, outcome.results));
  TESSERA_ASSIGN_OR_RETURN(const std::vector<AcceptedToken> accepted,
                           scheduler_->Accept(outcome.results));
  const absl::Duration accept_time = clock_->Now() - finished;
  snapshot_.last_step = finished;
  live_.TakeTokens(accepted, finished);
  // The next step runs already: it gets its masks before anything else is done.
  TESSERA_RETURN_IF_ERROR(SendMasks());
  Observe(step, accept_time, outcome.counters, std::ssize(accepted));
  for (const size_t dp_rank : step.reports) {
    observer_->OnExpertCounts(outcome.results[dp_rank].expert_counts);
  }
  return absl::OkStatus();
}

void EngineCore::Observe(const StepInFlight& step, absl::Duration accept_time,
                         const std::vector<proto::StepCounters>& counters,
                         int64_t num_accepted) {
  const SchedulerStats stats = scheduler_->stats();
  std::vector<TenantGauges> tenants;
  for (const TenantStats& tenant : stats.tenants) {
    tenants.push_back({.num_waiting = tenant.num_waiting,
                       .num_running = tenant.num_running,
                       .running_tokens = tenant.running_tokens,
                       .scheduled_tokens = tenant.scheduled_tokens,
                       .preemptions = tenant.preemptions});
  }
  StepObservation seen;
  seen.step_time = snapshot_.last_step - step.submitted;
  seen.scheduler_time = step.plan_time + accept_time;
  seen.num_tokens = step.num_tokens;
  seen.num_prefill_tokens = step.num_prefill_tokens;
  seen.num_sequences = step.num_sequences;
  seen.num_accepted_tokens = num_accepted;
  seen.drafts = DraftsOf(counters, options_.tp);
  seen.probe = step.probe;
  seen.rank_counters = counters;
  seen.gauges = {.num_waiting = stats.num_waiting,
                 .num_running = stats.num_running,
                 .waiting_tokens = stats.waiting_tokens,
                 .blocks_total = stats.blocks_total,
                 .blocks_used = stats.blocks_used,
                 .blocks_cached = stats.blocks_cached,
                 .tail_blocks_total = stats.tail_blocks_total,
                 .tail_blocks_used = stats.tail_blocks_used,
                 .tail_blocks_cached = stats.tail_blocks_cached,
                 .prefix_query_tokens = stats.prefix_query_tokens,
                 .prefix_hit_tokens = stats.prefix_hit_tokens,
                 .prefix_shortened_tokens = stats.prefix_shortened_tokens,
                 .preemptions = stats.preemptions,
                 .host_blocks_total = stats.host_blocks_total,
                 .host_blocks_cached = stats.host_blocks_cached,
                 .host_hit_tokens = stats.tiers.host_hit_tokens,
                 .disk_blocks_total = stats.disk_blocks_total,
                 .disk_blocks_cached = stats.disk_blocks_cached,
                 .disk_hit_tokens = stats.tiers.disk_hit_tokens,
                 .spilled_blocks = stats.tiers.spilled_blocks,
                 .fetched_blocks = stats.tiers.fetched_blocks,
                 .failed_disk_copies = stats.tiers.failed_disk_copies,
                 .disk_waits = stats.tiers.disk_waits,
                 .given_up_disk_waits = stats.tiers.given_up_disk_waits,
                 .offloaded_blocks = stats.tiers.offloaded_blocks,
                 .restored_blocks = stats.tiers.restored_blocks,
                 .handed_over_sequences = stats.hand_overs.sequences,
                 .given_up_sequences = stats.hand_overs.given_up,
                 .handed_over_tokens = stats.hand_overs.tokens,
                 .handed_over_blocks = stats.hand_overs.blocks,
                 .handed_over_recomputed_tokens = stats.hand_overs.recomputed_tokens,
                 .tenants = tenants};
  observer_->OnStep(seen);
  if (stats.preemptions > preemptions_seen_) {
    observer_->OnPreemptions(static_cast<int64_t>(stats.preemptions - preemptions_seen_));
    preemptions_seen_ = stats.preemptions;
  }
}

void EngineCore::FailGroup(const absl::Status& reason) {
  log::Error("engine", "the group failed", {{"epoch", epoch_}, {"reason", Text(reason)}});
  AbortGroup(reason);
  observer_->OnGroupFailed(epoch_, reason);
  provider_->OnGroupFailed(epoch_, reason);
  unreported_failure_ =
      UnavailableF("the group of epoch {} failed: {}", epoch_, Text(reason));
  ++epoch_;
  PauseBeforeForming();
}

void EngineCore::EndFailedRequests() {
  if (!unreported_failure_.has_value()) {
    return;
  }
  // Requests that no plan has named yet lost nothing: they keep their place in the queue.
  live_.EndStarted(*unreported_failure_, clock_->Now());
  unreported_failure_.reset();
  scheduler_->StartEpoch(epoch_);
}

void EngineCore::AbortGroup(const absl::Status& reason) {
  if (group_ != nullptr) {
    group_->Abort(reason);
    group_.reset();
  }
  in_flight_.clear();
  state_ = GroupState::kDown;
}

void EngineCore::PauseBeforeForming() {
  state_ = GroupState::kDown;
  absl::Duration pause = options_.reform_pause;
  for (int64_t i = 0; i < failures_in_row_ && pause < options_.reform_pause_max; ++i) {
    pause *= 2;
  }
  ++failures_in_row_;
  // Half to all of the pause, so that groups that died together do not return together.
  const double jitter = CounterRng(options_.jitter_seed, 0).Uniform(epoch_);
  pause = std::min(pause, options_.reform_pause_max) * (0.5 + 0.5 * jitter);
  next_form_ = clock_->Now() + pause;
}

absl::Time EngineCore::NextWakeup() const {
  absl::Time wakeup = absl::InfiniteFuture();
  if (state_ == GroupState::kDown) {
    wakeup = std::min(wakeup, next_form_);
  } else if (state_ == GroupState::kUp) {
    wakeup = std::min({wakeup, snapshot_.last_step + options_.probe_interval,
                       clock_->Now() + kGroupCheckPeriod});
  }
  if (live_.size() > 0) {
    wakeup = std::min({wakeup, drain_deadline_, clock_->Now() + kDeadlineCheck});
  }
  return wakeup;
}

std::vector<std::string> EngineCore::TakeEnded() {
  std::vector<std::string> ended = live_.TakeEnded();
  if (!ended.empty()) {
    const absl::Time now = clock_->Now();
    if (last_end_ != absl::InfinitePast()) {
      // A moving average over about ten ends.
      const absl::Duration interval =
          (now - last_end_) / static_cast<double>(ended.size());
      snapshot_.finish_interval = 0.9 * snapshot_.finish_interval + 0.1 * interval;
    }
    last_end_ = now;
  }
  return ended;
}

void EngineCore::UpdateSnapshot() {
  snapshot_.group_up = state_ == GroupState::kUp;
  snapshot_.epoch = epoch_;
  snapshot_.stats = scheduler_->stats();
  switch (state_) {
    case GroupState::kDown:
    case GroupState::kForming:
      snapshot_.phase = "forming group";
      break;
    case GroupState::kProbing:
      snapshot_.phase = "first step";
      break;
    case GroupState::kUp:
      snapshot_.phase = "ready";
      break;
  }
}

}  // namespace tessera::coordinator
