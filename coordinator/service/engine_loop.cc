#include "coordinator/service/engine_loop.h"

#include <algorithm>
#include <utility>

#include "common/check.h"
#include "common/status.h"
#include "common/status_macros.h"
#include "coordinator/scheduler/scheduler_options_check.h"

namespace tessera::coordinator {
namespace {

// Every accepted request puts at most a submit and a cancel into the inbox; beside them
// lie the results of forming and the calls of StartDrain.
size_t InboxCapacity(const SchedulerOptions& options) {
  const int64_t live = options.max_waiting + options.num_dp_ranks * options.max_num_seqs;
  return static_cast<size_t>(2 * live + 16);
}

// How old the list of requests may grow while somebody looks at it, and for how long a
// look counts.
constexpr absl::Duration kRequestListPeriod = absl::Milliseconds(500);
constexpr absl::Duration kRequestListInterest = absl::Seconds(5);

}  // namespace

absl::StatusOr<std::unique_ptr<EngineLoop>> EngineLoop::Create(
    const EngineOptions& options, GroupProvider* provider,
    const model::Tokenizer* tokenizer, Clock* clock, EngineObserver* observer) {
  TESSERA_ASSIGN_OR_RETURN(
      std::unique_ptr<EngineCore> core,
      EngineCore::Create(options, provider, tokenizer, clock, observer));
  std::unique_ptr<EngineLoop> loop(
      new EngineLoop(options, std::move(core), provider, clock, observer));
  loop->forming_ = std::thread([raw = loop.get()] { raw->RunForming(); });
  loop->thread_ = std::thread([raw = loop.get()] { raw->Run(); });
  return loop;
}

EngineLoop::EngineLoop(const EngineOptions& options, std::unique_ptr<EngineCore> core,
                       GroupProvider* provider, Clock* clock, EngineObserver* observer)
    : options_(options),
      provider_(provider),
      clock_(clock),
      observer_(observer != nullptr ? observer : &no_observer_),
      inbox_(InboxCapacity(options.scheduler)),
      form_requests_(1),
      core_(std::move(core)),
      snapshot_(core_->snapshot()) {}

EngineLoop::~EngineLoop() { Shutdown(); }

bool EngineLoop::IsReady() const {
  // A step in progress may take its whole timeout before the group counts as failed.
  const absl::Duration age_max = options_.probe_interval + options_.step_timeout;
  return snapshot_.group_up && !draining_ && !stopped_ && !cordoned_ &&
         clock_->Now() - snapshot_.last_step <= age_max;
}

absl::Status EngineLoop::Admit(const ValidatedRequest& request) {
  if (draining_ || stopped_) {
    ++num_rejected_unready_;
    return absl::UnavailableError("the server is shutting down");
  }
  if (cordoned_) {
    ++num_rejected_unready_;
    return absl::UnavailableError("the server is cordoned");
  }
  if (!IsReady()) {
    ++num_rejected_unready_;
    return UnavailableF("no group is ready: {}", snapshot_.phase);
  }
  const int64_t queued = snapshot_.stats.num_waiting + inbox_sequences_;
  if (queued + request.num_choices() > options_.scheduler.max_waiting) {
    ++num_rejected_full_;
    return absl::ResourceExhaustedError(
        fmt::format("{} sequences wait and {} more would exceed the queue of {}", queued,
                    request.num_choices(), options_.scheduler.max_waiting));
  }
  if (known_.contains(request.request_id())) {
    return InvalidArgumentF("request id {} is in use", request.request_id());
  }
  return absl::OkStatus();
}

absl::Status EngineLoop::Submit(ValidatedRequest request,
                                std::shared_ptr<RequestSink> sink) {
  MutexLock lock(&mutex_);
  TESSERA_RETURN_IF_ERROR(Admit(request));
  const std::string id = request.request_id();
  const int64_t num_choices = request.num_choices();
  Command command = SubmitCommand{.request = std::move(request), .sink = std::move(sink)};
  const absl::Status pushed = inbox_.TryPush(std::move(command));
  if (!pushed.ok()) {
    ++num_rejected_full_;
    return absl::ResourceExhaustedError("the engine's inbox is full");
  }
  known_[id] = Known();
  inbox_sequences_ += num_choices;
  return absl::OkStatus();
}

void EngineLoop::Cancel(const std::string& request_id) {
  MutexLock lock(&mutex_);
  const auto found = known_.find(request_id);
  if (found == known_.end() || found->second.cancelled) {
    return;
  }
  Command command = CancelCommand{.request_id = request_id};
  // The inbox has room for one cancel of every known request; it is closed only at
  // shutdown, which ends the request anyway.
  found->second.cancelled = inbox_.TryPush(std::move(command)).ok();
}

EngineStatus EngineLoop::status() const {
  MutexLock lock(&mutex_);
  EngineStatus status;
  status.ready = IsReady();
  status.draining = draining_ || cordoned_;
  status.fatal = snapshot_.fatal;
  status.phase = stopped_                              ? "stopped"
                 : draining_                           ? "draining"
                 : cordoned_                           ? "cordoned"
                 : !snapshot_.fatal.ok()               ? "no group can be formed"
                 : status.ready || !snapshot_.group_up ? snapshot_.phase
                                                       : "no step lately";
  status.num_running = snapshot_.stats.num_running;
  status.num_waiting = snapshot_.stats.num_waiting + inbox_sequences_;
  status.kv_blocks_total = snapshot_.stats.blocks_total;
  status.kv_blocks_used = snapshot_.stats.blocks_used;
  return status;
}

absl::Duration EngineLoop::retry_after() const {
  MutexLock lock(&mutex_);
  const auto waiting =
      static_cast<double>(snapshot_.stats.num_waiting + inbox_sequences_);
  return std::clamp(snapshot_.finish_interval * waiting, absl::Seconds(1),
                    absl::Seconds(60));
}

EngineReport EngineLoop::Report() {
  EngineReport report;
  {
    MutexLock lock(&mutex_);
    report.epoch = snapshot_.epoch;
    report.last_step = snapshot_.last_step;
    report.cordoned = cordoned_;
    report.host_blocks_total = snapshot_.stats.host_blocks_total;
    report.host_blocks_cached = snapshot_.stats.host_blocks_cached;
    report.host_tail_blocks_total = snapshot_.stats.host_tail_blocks_total;
    report.host_tail_blocks_cached = snapshot_.stats.host_tail_blocks_cached;
    report.requests = requests_;
    report.num_requests = static_cast<int64_t>(known_.size());
    requests_wanted_until_ = clock_->Now() + kRequestListInterest;
  }
  report.members = provider_->Members();
  return report;
}

void EngineLoop::SetCordoned(bool cordoned) {
  MutexLock lock(&mutex_);
  cordoned_ = cordoned;
}

absl::Status EngineLoop::SetTenants(std::vector<TenantPolicy> tenants,
                                    TenantPolicy others) {
  TESSERA_RETURN_IF_ERROR(CheckTenants(tenants, others));
  Command command =
      TenantsCommand{.tenants = std::move(tenants), .others = std::move(others)};
  return inbox_.TryPush(std::move(command));
}

bool EngineLoop::WaitReady(absl::Time deadline) const {
  MutexLock lock(&mutex_);
  const auto ready = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    return IsReady() || stopped_;
  };
  mutex_.AwaitWithDeadline(Condition(&ready), deadline);
  return IsReady();
}

void EngineLoop::StartDrain(absl::Duration timeout) {
  MutexLock lock(&mutex_);
  draining_ = true;
  Command command = DrainCommand{.deadline = clock_->Now() + timeout};
  // Refused only if it is closed, which ends all requests at once.
  inbox_.TryPush(std::move(command)).IgnoreError();
}

void EngineLoop::WaitDrained() {
  MutexLock lock(&mutex_);
  const auto drained = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    return known_.empty();
  };
  mutex_.Await(Condition(&drained));
}

void EngineLoop::Shutdown() {
  {
    MutexLock lock(&mutex_);
    stopped_ = true;
    inbox_.Close();
    form_requests_.Close();
  }
  // First the thread that drives the group: the provider may end what the group runs on.
  if (thread_.joinable()) {
    thread_.join();
  }
  provider_->CancelForm();
  if (forming_.joinable()) {
    forming_.join();
  }
}

void EngineLoop::RunForming() {
  while (true) {
    const absl::StatusOr<uint64_t> epoch = form_requests_.Pop();
    if (!epoch.ok()) {
      return;
    }
    absl::StatusOr<RankExecutors> formed = provider_->Form(*epoch);
    FormedCommand result{.epoch = *epoch, .status = formed.status(), .executors = {}};
    if (formed.ok()) {
      result.executors = *std::move(formed);
    }
    Command command = std::move(result);
    if (!inbox_.TryPush(std::move(command)).ok()) {
      // Only a closed inbox refuses: the group will not be used.
      for (const auto& executor : std::get<FormedCommand>(command).executors) {
        executor->Abort(absl::CancelledError("the engine stopped"));
      }
    }
  }
}

void EngineLoop::Apply(Command command) {
  if (auto* submit = std::get_if<SubmitCommand>(&command)) {
    applied_sequences_ += submit->request.num_choices();
    core_->Submit(std::move(submit->request), std::move(submit->sink));
  } else if (auto* cancel = std::get_if<CancelCommand>(&command)) {
    core_->Cancel(cancel->request_id);
  } else if (auto* formed = std::get_if<FormedCommand>(&command)) {
    core_->FormFinished(formed->epoch, formed->status, std::move(formed->executors));
  } else if (auto* drain = std::get_if<DrainCommand>(&command)) {
    core_->StartDrain(drain->deadline);
  } else if (auto* granted = std::get_if<TenantsCommand>(&command)) {
    core_->SetTenants(granted->tenants, granted->others);
  }
}

void EngineLoop::PublishRequests() {
  const int64_t num_requests = core_->num_requests();
  const absl::Time now = clock_->Now();
  {
    MutexLock lock(&mutex_);
    // The last one's end is told at once: an idle engine does not come here again soon.
    const bool emptied = num_requests == 0 && !requests_.empty();
    const bool due = now < requests_wanted_until_ && now >= next_request_list_;
    if (!emptied && !due) {
      return;
    }
    next_request_list_ = now + kRequestListPeriod;
  }
  std::vector<RequestReport> requests = core_->ReportRequests();
  MutexLock lock(&mutex_);
  requests_ = std::move(requests);
}

void EngineLoop::Publish() {
  PublishRequests();
  const std::vector<std::string> ended = core_->TakeEnded();
  int64_t num_full = 0;
  int64_t num_unready = 0;
  {
    MutexLock lock(&mutex_);
    snapshot_ = core_->snapshot();
    inbox_sequences_ -= std::exchange(applied_sequences_, 0);
    for (const std::string& id : ended) {
      known_.erase(id);
    }
    num_full = std::exchange(num_rejected_full_, 0);
    num_unready = std::exchange(num_rejected_unready_, 0);
  }
  for (; num_full > 0; --num_full) {
    observer_->OnRejected(absl::ResourceExhaustedError("queue full"));
  }
  for (; num_unready > 0; --num_unready) {
    observer_->OnRejected(absl::UnavailableError("not ready"));
  }
}

void EngineLoop::Run() {
  bool busy = true;
  while (true) {
    if (!busy) {
      absl::StatusOr<Command> command = inbox_.Pop(core_->NextWakeup());
      if (command.ok()) {
        Apply(*std::move(command));
      } else if (absl::IsCancelled(command.status())) {
        break;
      }
    }
    while (std::optional<Command> command = inbox_.TryPop()) {
      Apply(*std::move(command));
    }
    {
      MutexLock lock(&mutex_);
      if (stopped_) {
        break;
      }
    }
    busy = core_->Advance();
    if (const std::optional<uint64_t> epoch = core_->TakeFormRequest();
        epoch.has_value()) {
      uint64_t value = *epoch;
      // One request at a time is out, so there is room; closed means that the engine
      // stops.
      form_requests_.TryPush(std::move(value)).IgnoreError();
    }
    Publish();
  }
  while (std::optional<Command> command = inbox_.TryPop()) {
    Apply(*std::move(command));
  }
  core_->EndAll(absl::UnavailableError("the server is shutting down"));
  core_->AbortGroup(absl::CancelledError("the engine stopped"));
  Publish();
}

}  // namespace tessera::coordinator
