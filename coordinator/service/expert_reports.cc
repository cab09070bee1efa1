#include "coordinator/service/expert_reports.h"

#include <algorithm>

#include "common/status.h"

namespace tessera::coordinator {

ExpertReports::ExpertReports(int64_t num_counts, size_t num_dp_ranks,
                             absl::Duration period)
    : num_counts_(static_cast<size_t>(num_counts)),
      period_(period),
      untold_(num_dp_ranks, false) {}

std::vector<size_t> ExpertReports::Ask(bool probe, absl::Time now,
                                       std::span<proto::StepPlan> plans) {
  std::vector<size_t> asked;
  if (num_counts_ == 0) {
    return asked;
  }
  if (probe) {
    for (size_t rank = 0; rank < plans.size(); ++rank) {
      plans[rank].leaves_expert_counts = true;
      if (untold_[rank]) {
        asked.push_back(rank);
      }
    }
  } else {
    untold_.assign(untold_.size(), true);
    if (now >= next_) {
      asked.push_back(turn_);
      turn_ = (turn_ + 1) % untold_.size();
      next_ = now + period_ / static_cast<double>(untold_.size());
    }
  }
  for (const size_t rank : asked) {
    plans[rank].reports_expert_counts = true;
    untold_[rank] = false;
  }
  return asked;
}

absl::Status ExpertReports::Check(std::span<const size_t> asked,
                                  std::span<const proto::StepResult> results) const {
  for (size_t rank = 0; rank < results.size(); ++rank) {
    const bool expects = std::find(asked.begin(), asked.end(), rank) != asked.end();
    const size_t expected = expects ? num_counts_ : 0;
    if (results[rank].expert_counts.size() != expected) {
      return InternalF("dp rank {} answers with {} expert counts, expected {}", rank,
                       results[rank].expert_counts.size(), expected);
    }
  }
  return absl::OkStatus();
}

}  // namespace tessera::coordinator
