#include "tests/simulation/serving_simulation.h"

#include <algorithm>
#include <optional>
#include <utility>

#include "common/status.h"
#include "common/status_macros.h"

namespace tessera::testing {

absl::Duration Percentile(std::vector<absl::Duration> values, double percent) {
  if (values.empty()) {
    return absl::ZeroDuration();
  }
  const auto rank =
      static_cast<size_t>(static_cast<double>(values.size() - 1) * percent / 100);
  std::nth_element(values.begin(), values.begin() + static_cast<std::ptrdiff_t>(rank),
                   values.end());
  return values[rank];
}

ServingSimulation::ServingSimulation(const ServingOptions& options)
    : options_(options), random_(options.trace.seed ^ 0x5eed), tenant_of_(1, 0) {
  absl::Time last = now_;
  for (TraceRequest& request : MakeTrace(options_.trace)) {
    last = std::max(last, request.at);
    arrivals_.emplace(request.at, std::move(request));
  }
  for (int i = 1; i <= options_.num_group_failures; ++i) {
    failures_.push_back(now_ + (last - now_) * i / (options_.num_group_failures + 1));
  }
  report_.rank_tokens.resize(static_cast<size_t>(options_.scheduler.num_dp_ranks));
}

int64_t ServingSimulation::MaxLength(const TraceRequest& request) const {
  return std::min(options_.scheduler.max_model_len,
                  std::ssize(request.prompt) + request.max_tokens);
}

void ServingSimulation::StartGroup() {
  scheduler_->StartEpoch(epoch_);
  in_flight_.clear();
  workers_.clear();
  for (int64_t i = 0; i < options_.scheduler.num_dp_ranks; ++i) {
    workers_.emplace_back(options_.scheduler,
                          [this](uint64_t seed) { return tenant_of_.at(seed); });
  }
}

absl::Status ServingSimulation::Run() {
  TESSERA_ASSIGN_OR_RETURN(scheduler_,
                           coordinator::Scheduler::Create(options_.scheduler));
  StartGroup();
  const absl::Time stop = options_.stop_after > absl::ZeroDuration()
                              ? now_ + options_.stop_after
                              : absl::InfiniteFuture();
  while (now_ < stop) {
    TESSERA_RETURN_IF_ERROR(TakeEvents());
    if (in_flight_.size() < 2 && scheduler_->has_work()) {
      TESSERA_RETURN_IF_ERROR(WithContext(PlanStep(), "plan"));
      TESSERA_RETURN_IF_ERROR(Recount());
    }
    if (in_flight_.size() == 2 || (!in_flight_.empty() && !scheduler_->has_work())) {
      now_ = std::max(now_, in_flight_.front().end);
      TESSERA_RETURN_IF_ERROR(WithContext(AcceptStep(), "accept"));
      TESSERA_RETURN_IF_ERROR(Recount());
    } else if (in_flight_.empty() && !scheduler_->has_work()) {
      if (arrivals_.empty() && live_.empty()) {
        break;
      }
      if (arrivals_.empty()) {
        return InternalF("{} requests live with nothing to do", live_.size());
      }
      now_ = std::max(now_, arrivals_.begin()->first);
    }
  }
  report_.simulated = now_ - absl::UnixEpoch();
  report_.stats = scheduler_->stats();
  return stop == absl::InfiniteFuture() ? CheckEnd() : absl::OkStatus();
}

absl::Status ServingSimulation::Recount() const {
  return report_.steps % options_.recount_every == 0 ? scheduler_->CheckInvariants()
                                                     : absl::OkStatus();
}

absl::Status ServingSimulation::TakeEvents() {
  if (!failures_.empty() && failures_.front() <= now_) {
    failures_.pop_front();
    ++epoch_;
    ++report_.epochs;
    // Until the group is formed again.
    now_ += absl::Seconds(1);
    last_end_ = now_;
    StartGroup();
  }
  while (!arrivals_.empty() && arrivals_.begin()->first <= now_) {
    auto node = arrivals_.extract(arrivals_.begin());
    TESSERA_RETURN_IF_ERROR(WithContext(Arrive(std::move(node.mapped())), "enqueue"));
  }
  while (!cancels_.empty() && cancels_.begin()->first <= now_) {
    const coordinator::SequenceId id = cancels_.begin()->second;
    cancels_.erase(cancels_.begin());
    if (live_.contains(id)) {
      ++report_.cancelled;
      End(id);
    }
  }
  return ExpireDue();
}

absl::Status ServingSimulation::Arrive(TraceRequest request) {
  coordinator::SequenceSpec spec;
  spec.id = tenant_of_.size();
  spec.tenant = request.tenant;
  spec.prompt = request.prompt;
  spec.max_tokens = request.max_tokens;
  spec.sampling.seed = spec.id;
  spec.priority = request.priority;
  spec.arrival = request.at;
  spec.deadline = request.deadline;
  const auto number =
      tenant_numbers_.try_emplace(request.tenant, tenant_numbers_.size() + 1);
  tenant_of_.push_back(number.first->second);
  ++num_arrived_;
  const coordinator::SequenceId id = spec.id;
  const absl::Status status = scheduler_->Enqueue(std::move(spec));
  if (absl::IsResourceExhausted(status)) {
    ++report_.refused;
    ++report_.tenants[request.tenant].refused;
    return absl::OkStatus();
  }
  for (const coordinator::TenantPolicy& policy : options_.scheduler.tenants) {
    if (absl::IsInvalidArgument(status) && policy.name == request.tenant &&
        policy.max_running_tokens > 0 && MaxLength(request) > policy.max_running_tokens) {
      ++report_.refused;
      return absl::OkStatus();
    }
  }
  TESSERA_RETURN_IF_ERROR(status);
  if (request.cancelled_at.has_value()) {
    cancels_.emplace(*request.cancelled_at, id);
  }
  live_[id].request = std::move(request);
  return absl::OkStatus();
}

void ServingSimulation::End(coordinator::SequenceId id) {
  scheduler_->Finish(id);
  live_.erase(id);
}

absl::Status ServingSimulation::ExpireDue() {
  for (const coordinator::SequenceId id : scheduler_->Expired(now_)) {
    const auto found = live_.find(id);
    if (found == live_.end() || found->second.request.deadline > now_) {
      return InternalF("sequence {} expired without need", id);
    }
    ++report_.expired;
    End(id);
  }
  // Deadlines are looked at between steps, and a group that failed takes a while.
  for (const auto& [id, live] : live_) {
    if (live.request.deadline <= now_) {
      return InternalF("sequence {} lives after its deadline", id);
    }
  }
  return absl::OkStatus();
}

absl::Status ServingSimulation::PlanStep() {
  const coordinator::PlannedStep step = scheduler_->Plan(now_);
  StepInFlight planned;
  absl::Duration time;
  CountingWorker::Transfers transfers;
  for (size_t rank = 0; rank < workers_.size(); ++rank) {
    workers_[rank].Send(step.plans[rank], &transfers);
  }
  for (size_t rank = 0; rank < workers_.size(); ++rank) {
    RankWork work;
    TESSERA_ASSIGN_OR_RETURN(proto::StepResult result,
                             workers_[rank].Execute(step.plans[rank], transfers, &work));
    planned.results.push_back(std::move(result));
    time = std::max(time, options_.time.TimeOf(work));
    report_.rank_tokens[rank] += work.num_tokens;
    report_.accepted_drafts += work.num_accepted;
  }
  TESSERA_RETURN_IF_ERROR(CheckQuotas());
  // Planned ahead, it begins when the step before it ends.
  planned.end = std::max(now_, last_end_) + time;
  last_end_ = planned.end;
  report_.longest_step = std::max(report_.longest_step, time);
  ++report_.steps;
  in_flight_.push_back(std::move(planned));
  return absl::OkStatus();
}

absl::Status ServingSimulation::CheckQuotas() const {
  for (const coordinator::TenantPolicy& policy : options_.scheduler.tenants) {
    int64_t running = 0;
    for (const CountingWorker& worker : workers_) {
      for (const uint64_t seed : worker.LiveSeeds()) {
        const auto found = live_.find(seed);
        if (found != live_.end() && found->second.request.tenant == policy.name) {
          running += MaxLength(found->second.request);
        }
      }
    }
    if (policy.max_running_tokens > 0 && running > policy.max_running_tokens) {
      return InternalF("{} tokens of tenant {} run, expected at most {}", running,
                       policy.name, policy.max_running_tokens);
    }
  }
  return absl::OkStatus();
}

absl::Status ServingSimulation::AcceptStep() {
  TESSERA_ASSIGN_OR_RETURN(const std::vector<coordinator::AcceptedToken> accepted,
                           scheduler_->Accept(in_flight_.front().results));
  in_flight_.pop_front();
  for (const coordinator::AcceptedToken& token : accepted) {
    TESSERA_RETURN_IF_ERROR(TakeToken(token));
  }
  return absl::OkStatus();
}

absl::Status ServingSimulation::TakeToken(const coordinator::AcceptedToken& token) {
  const auto found = live_.find(token.sequence);
  if (found == live_.end()) {
    return InternalF("token for sequence {}, which is not live", token.sequence);
  }
  Live& live = found->second;
  const size_t position = live.request.prompt.size() + live.answer.size();
  const int32_t expected = CountedToken(token.sequence, position);
  if (token.index != std::ssize(live.answer) || token.sampled.token != expected) {
    return InternalF("token {} of sequence {} is {}, expected token {} to be {}",
                     token.index, token.sequence, token.sampled.token, live.answer.size(),
                     expected);
  }
  if (live.answer.empty()) {
    const absl::Duration first = now_ - live.request.at;
    if (live.request.is_long) {
      report_.long_first_time = first;
    } else {
      report_.first_times.push_back(first);
      report_.tenants[live.request.tenant].first_times.push_back(first);
    }
  } else if (!live.request.is_long && live.last_token != now_) {
    report_.gaps.push_back(now_ - live.last_token);
  }
  live.last_token = now_;
  live.answer.push_back(token.sampled.token);
  ++report_.tokens;
  const bool last = std::ssize(live.answer) + std::ssize(live.request.prompt) ==
                    MaxLength(live.request);
  if (token.length_reached != last) {
    return InternalF("sequence {} token {}: length_reached is {}", token.sequence,
                     token.index, token.length_reached);
  }
  if (last) {
    ++report_.finished;
    std::optional<TraceRequest> next = NextTurn(
        live.request, live.answer, now_, options_.scheduler.max_model_len, &random_);
    if (next.has_value()) {
      ++report_.turns;
      arrivals_.emplace(next->at, *std::move(next));
    }
    End(token.sequence);
  }
  return absl::OkStatus();
}

absl::Status ServingSimulation::CheckEnd() const {
  const coordinator::SchedulerStats& stats = report_.stats;
  if (stats.num_waiting != 0 || stats.num_running != 0 || stats.waiting_tokens != 0 ||
      stats.blocks_used != 0 || stats.tail_blocks_used != 0) {
    return InternalF(
        "after the end {} wait, {} run, {} tokens wait, {} blocks and {} tail blocks are "
        "used",
        stats.num_waiting, stats.num_running, stats.waiting_tokens, stats.blocks_used,
        stats.tail_blocks_used);
  }
  const int64_t ended =
      report_.finished + report_.cancelled + report_.expired + report_.refused;
  if (ended != num_arrived_) {
    return InternalF("{} requests arrived and {} ended", num_arrived_, ended);
  }
  return absl::OkStatus();
}

}  // namespace tessera::testing
