#include "coordinator/console/activity_window.h"

#include <algorithm>
#include <numeric>

namespace tessera::coordinator {
namespace {

std::optional<double> MeanMs(absl::Duration sum, int64_t count) {
  return count == 0 ? std::nullopt
                    : std::optional(absl::ToDoubleMilliseconds(sum) /
                                    static_cast<double>(count));
}

std::optional<double> Ratio(double part, double whole) {
  return whole <= 0 ? std::nullopt : std::optional(part / whole);
}

}  // namespace

ActivityWindow::ActivityWindow(absl::Duration period, size_t capacity, absl::Time start)
    : period_(period), capacity_(capacity), start_(start) {}

void ActivityWindow::AdvanceTo(absl::Time now) {
  const absl::Duration gone = now - start_;
  const absl::Duration kept = period_ * static_cast<double>(capacity_);
  if (gone > kept + period_) {
    // Whatever lies further back than the ring reaches is empty but for the first.
    Close();
    start_ = std::max(start_, now - kept);
  }
  while (start_ + period_ <= now) {
    Close();
  }
}

void ActivityWindow::AddStep(const StepObservation& step) {
  ++sums_.steps;
  sums_.step_time += step.step_time;
  sums_.scheduler_time += step.scheduler_time;
  sums_.prompt_tokens += step.probe ? 0 : step.num_prefill_tokens;
  sums_.generated_tokens += step.num_accepted_tokens;
  sums_.draft_tokens += step.drafts.num_draft_tokens;
  sums_.accepted_drafts += std::accumulate(step.drafts.accepted.begin(),
                                           step.drafts.accepted.end(), int64_t{0});
  uint64_t rows = 0;
  uint64_t wait_ns = 0;
  for (const proto::StepCounters& rank : step.rank_counters) {
    rows += rank.engram_rows;
    wait_ns = std::max(wait_ns, rank.engram_wait_ns);
    sums_.engram_late_waits += rank.engram_late_waits;
    sums_.expert_imbalance =
        std::max(sums_.expert_imbalance, double{rank.expert_imbalance});
  }
  sums_.engram_rows += rows;
  if (rows > 0) {
    sums_.engram_wait_ns += wait_ns;
    ++sums_.engram_steps;
  }
  gauges_ = step.gauges;
}

void ActivityWindow::AddRequest(bool failed, int64_t count) {
  sums_.requests += count;
  sums_.failed += failed ? count : 0;
}

std::vector<ActivitySample> ActivityWindow::Samples(size_t count) const {
  return {ring_.end() - static_cast<ptrdiff_t>(std::min(count, ring_.size())),
          ring_.end()};
}

void ActivityWindow::Close() {
  const double seconds = absl::ToDoubleSeconds(period_);
  const auto rate = [seconds](auto count) {
    return static_cast<double>(count) / seconds;
  };
  start_ += period_;
  ActivitySample sample;
  sample.end = start_;
  sample.requests = rate(sums_.requests);
  sample.failed = rate(sums_.failed);
  sample.prompt_tokens = rate(sums_.prompt_tokens);
  sample.generated_tokens = rate(sums_.generated_tokens);
  sample.steps = rate(sums_.steps);
  sample.engram_rows = rate(sums_.engram_rows);
  sample.engram_late_waits = rate(sums_.engram_late_waits);
  sample.step_ms = MeanMs(sums_.step_time, sums_.steps);
  sample.scheduler_ms = MeanMs(sums_.scheduler_time, sums_.steps);
  sample.first_token_ms = first_tokens_.Quantile(0.5);
  sample.first_token_ms_95 = first_tokens_.Quantile(0.95);
  sample.token_gap_ms = token_gaps_.Quantile(0.5);
  sample.token_gap_ms_95 = token_gaps_.Quantile(0.95);
  sample.engram_wait_ms = MeanMs(
      absl::Nanoseconds(static_cast<int64_t>(sums_.engram_wait_ns)), sums_.engram_steps);
  sample.prefix_hit_ratio =
      Ratio(static_cast<double>(gauges_.prefix_hit_tokens - hit_tokens_seen_),
            static_cast<double>(gauges_.prefix_query_tokens - query_tokens_seen_));
  sample.draft_acceptance = Ratio(static_cast<double>(sums_.accepted_drafts),
                                  static_cast<double>(sums_.draft_tokens));
  if (sums_.expert_imbalance > 0) {
    sample.expert_imbalance = sums_.expert_imbalance;
  }
  sample.running = gauges_.num_running;
  sample.waiting = gauges_.num_waiting;
  sample.kv_used_ratio = Ratio(static_cast<double>(gauges_.blocks_used),
                               static_cast<double>(gauges_.blocks_total))
                             .value_or(0);
  query_tokens_seen_ = gauges_.prefix_query_tokens;
  hit_tokens_seen_ = gauges_.prefix_hit_tokens;
  sums_ = Sums();
  first_tokens_.Clear();
  token_gaps_.Clear();
  ring_.push_back(sample);
  if (ring_.size() > capacity_) {
    ring_.pop_front();
  }
}

}  // namespace tessera::coordinator
