#include "coordinator/console/activity_recorder.h"

#include <algorithm>
#include <utility>

#include "fmt/format.h"

namespace tessera::coordinator {
namespace {

constexpr absl::Duration kSecond = absl::Seconds(1);
// 300 samples each: five minutes, and an hour.
constexpr absl::Duration kLongPeriod = absl::Seconds(12);
constexpr size_t kNumSamples = 300;
constexpr size_t kMaxErrors = 50;
constexpr size_t kMaxMessageBytes = 500;

std::string CodeName(absl::StatusCode code) {
  std::string name = absl::StatusCodeToString(code);
  for (char& c : name) {
    c = c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
  }
  return name;
}

std::string MessageOf(const absl::Status& status) {
  return std::string(status.message().substr(0, kMaxMessageBytes));
}

BlockUse UseOf(int64_t total, int64_t used, int64_t cached) {
  return {.total = total, .used = used, .cached = cached};
}

}  // namespace

ActivityRecorder::ActivityRecorder(EngineObserver* next, Clock* clock,
                                   ExpertLoads* experts)
    : next_(next != nullptr ? next : &silent_),
      clock_(clock),
      experts_(experts),
      recent_(kSecond, kNumSamples, clock->Now()),
      past_(kLongPeriod, kNumSamples, clock->Now()),
      second_start_(clock->Now()) {}

void ActivityRecorder::AdvanceTo(absl::Time now) {
  recent_.AdvanceTo(now);
  past_.AdvanceTo(now);
  const absl::Duration gone = now - second_start_;
  if (gone < kSecond) {
    return;
  }
  // An idle group's last numbers stay: zeros would say that its ranks are at rest.
  const double seconds = absl::ToDoubleSeconds(gone);
  for (size_t i = 0; i < rank_sums_.size(); ++i) {
    const RankSums& sums = rank_sums_[i];
    if (sums.steps == 0) {
      continue;
    }
    const auto steps = static_cast<double>(sums.steps);
    const auto ms = [steps](uint64_t ns) {
      return static_cast<double>(ns) / steps / 1e6;
    };
    ranks_[i] = {
        .steps = steps / seconds,
        .tokens = static_cast<double>(sums.counters.num_tokens) / seconds,
        .step_ms = ms(sums.counters.step_ns),
        .collective_ms = ms(sums.counters.collective_ns),
        .collective_bytes = static_cast<double>(sums.counters.collective_bytes) / seconds,
        .engram_wait_ms = ms(sums.counters.engram_wait_ns),
        .engram_rows = static_cast<double>(sums.counters.engram_rows) / seconds,
        .expert_imbalance = sums.counters.expert_imbalance};
    rank_sums_[i] = RankSums();
  }
  second_start_ = now;
}

void ActivityRecorder::AddRanks(const StepObservation& step) {
  rank_sums_.resize(step.rank_counters.size());
  ranks_.resize(step.rank_counters.size());
  for (size_t i = 0; i < step.rank_counters.size(); ++i) {
    const proto::StepCounters& rank = step.rank_counters[i];
    proto::StepCounters& sum = rank_sums_[i].counters;
    ++rank_sums_[i].steps;
    sum.step_ns += rank.step_ns;
    sum.collective_ns += rank.collective_ns;
    sum.collective_bytes += rank.collective_bytes;
    sum.engram_wait_ns += rank.engram_wait_ns;
    sum.engram_rows += rank.engram_rows;
    sum.num_tokens += rank.num_tokens;
    sum.expert_imbalance = std::max(sum.expert_imbalance, rank.expert_imbalance);
    totals_.engram_rows += rank.engram_rows;
    totals_.engram_late_waits += rank.engram_late_waits;
  }
}

void ActivityRecorder::OnStep(const StepObservation& step) {
  next_->OnStep(step);
  const absl::Time now = clock_->Now();
  MutexLock lock(&mutex_);
  AdvanceTo(now);
  recent_.AddStep(step);
  past_.AddStep(step);
  AddRanks(step);
  gauges_ = step.gauges;
  totals_.prompt_tokens += step.probe ? 0 : step.num_prefill_tokens;
  totals_.generated_tokens += step.num_accepted_tokens;
}

void ActivityRecorder::OnExpertCounts(std::span<const uint32_t> counts) {
  next_->OnExpertCounts(counts);
  if (experts_ != nullptr) {
    experts_->Add(counts);
  }
}

void ActivityRecorder::OnToken(std::optional<absl::Duration> gap) {
  next_->OnToken(gap);
  if (!gap.has_value()) {
    return;
  }
  MutexLock lock(&mutex_);
  recent_.AddTokenGap(*gap);
  past_.AddTokenGap(*gap);
}

void ActivityRecorder::AddRequest(bool failed) {
  recent_.AddRequest(failed);
  past_.AddRequest(failed);
  totals_.failed += failed ? 1 : 0;
}

void ActivityRecorder::AddError(ActivityError error) {
  errors_.push_front(std::move(error));
  if (errors_.size() > kMaxErrors) {
    errors_.pop_back();
  }
}

void ActivityRecorder::OnRequestFinished(const RequestObservation& request) {
  next_->OnRequestFinished(request);
  const absl::Time now = clock_->Now();
  MutexLock lock(&mutex_);
  AdvanceTo(now);
  ++totals_.requests;
  const bool failed = request.outcome == RequestOutcome::kError;
  AddRequest(failed);
  if (request.first_token_time.has_value()) {
    recent_.AddFirstToken(*request.first_token_time);
    past_.AddFirstToken(*request.first_token_time);
  }
  if (failed) {
    AddError({.time = now,
              .kind = "request",
              .code = CodeName(request.code),
              .subject = request.request_id,
              .message = ""});
  }
}

void ActivityRecorder::OnPreemptions(int64_t count) { next_->OnPreemptions(count); }

void ActivityRecorder::OnRejected(const absl::Status& reason) {
  next_->OnRejected(reason);
  const absl::Time now = clock_->Now();
  MutexLock lock(&mutex_);
  AdvanceTo(now);
  ++totals_.refused;
  AddRequest(/*failed=*/true);
  AddError({.time = now,
            .kind = "refused",
            .code = CodeName(reason.code()),
            .subject = "",
            .message = MessageOf(reason)});
}

void ActivityRecorder::OnGroupReady(uint64_t epoch) { next_->OnGroupReady(epoch); }

void ActivityRecorder::OnGroupFailed(uint64_t epoch, const absl::Status& reason) {
  next_->OnGroupFailed(epoch, reason);
  const absl::Time now = clock_->Now();
  MutexLock lock(&mutex_);
  AdvanceTo(now);
  ++totals_.group_failures;
  AddError({.time = now,
            .kind = "group",
            .code = CodeName(reason.code()),
            .subject = fmt::format("epoch {}", epoch),
            .message = MessageOf(reason)});
}

Activity ActivityRecorder::Read(bool whole) {
  const absl::Time now = clock_->Now();
  MutexLock lock(&mutex_);
  AdvanceTo(now);
  Activity activity;
  activity.recent_period = recent_.period();
  activity.long_period = past_.period();
  activity.recent = recent_.Samples(whole ? kNumSamples : 1);
  activity.past = past_.Samples(whole ? kNumSamples : 0);
  activity.ranks = ranks_;
  activity.blocks =
      UseOf(gauges_.blocks_total, gauges_.blocks_used, gauges_.blocks_cached);
  activity.tail_blocks = UseOf(gauges_.tail_blocks_total, gauges_.tail_blocks_used,
                               gauges_.tail_blocks_cached);
  activity.totals = totals_;
  activity.totals.preemptions = gauges_.preemptions;
  activity.totals.prefix_query_tokens = gauges_.prefix_query_tokens;
  activity.totals.prefix_hit_tokens = gauges_.prefix_hit_tokens;
  activity.errors = {errors_.begin(), errors_.end()};
  return activity;
}

}  // namespace tessera::coordinator
