#include "coordinator/service/rank_group.h"

#include <algorithm>
#include <utility>

#include "common/status.h"

namespace tessera::coordinator {
namespace {

// Of the disk copies of a DP rank, those are done that all of its TP ranks have done; who
// failed at one of any rank's has no content by it.
void MergeDiskReport(const proto::StepResult& from, proto::StepResult* to) {
  to->disk_done = std::min(to->disk_done, from.disk_done);
  to->disk_failed.insert(to->disk_failed.end(), from.disk_failed.begin(),
                         from.disk_failed.end());
}

}  // namespace

absl::StatusOr<std::unique_ptr<RankGroup>> RankGroup::Create(RankExecutors executors,
                                                             int64_t num_dp_ranks,
                                                             int64_t tp) {
  if (std::ssize(executors) != num_dp_ranks * tp) {
    return InvalidArgumentF("group of {} ranks, expected dp {} x tp {}", executors.size(),
                            num_dp_ranks, tp);
  }
  for (size_t rank = 0; rank < executors.size(); ++rank) {
    if (executors[rank] == nullptr) {
      return InvalidArgumentF("rank {} has no executor", rank);
    }
  }
  return std::unique_ptr<RankGroup>(new RankGroup(std::move(executors), tp));
}

absl::Status RankGroup::Submit(PlannedStep step) {
  for (size_t rank = 0; rank < executors_.size(); ++rank) {
    const size_t dp_rank = rank / static_cast<size_t>(tp_);
    const bool last = (rank + 1) % static_cast<size_t>(tp_) == 0;
    proto::StepPlan plan = last ? std::move(step.plans[dp_rank]) : step.plans[dp_rank];
    const absl::Status status = executors_[rank]->Submit(std::move(plan));
    if (!status.ok()) {
      return WithContext(status, fmt::format("rank {}", rank));
    }
  }
  return absl::OkStatus();
}

absl::Status RankGroup::SubmitLate(uint64_t epoch, uint64_t step,
                                   std::vector<std::vector<proto::TokenMask>> masks) {
  for (size_t rank = 0; rank < executors_.size(); ++rank) {
    std::vector<proto::TokenMask>& own = masks[rank / static_cast<size_t>(tp_)];
    if (own.empty()) {
      continue;
    }
    const bool last = (rank + 1) % static_cast<size_t>(tp_) == 0;
    const absl::Status status = executors_[rank]->SubmitLate(
        {.epoch = epoch, .step = step, .masks = last ? std::move(own) : own});
    if (!status.ok()) {
      return WithContext(status, fmt::format("rank {}", rank));
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<RankGroup::StepOutcome> RankGroup::Wait(absl::Time deadline) {
  StepOutcome outcome;
  outcome.counters.reserve(executors_.size());
  for (size_t rank = 0; rank < executors_.size(); ++rank) {
    absl::StatusOr<proto::StepResult> result = executors_[rank]->Wait(deadline);
    if (!result.ok()) {
      return WithContext(result.status(), fmt::format("rank {}", rank));
    }
    outcome.counters.push_back(result->counters);
    if (rank % static_cast<size_t>(tp_) == 0) {
      outcome.results.push_back(*std::move(result));
    } else if (result->epoch != outcome.results.back().epoch ||
               result->step != outcome.results.back().step) {
      return InternalF(
          "rank {} answered step {} of epoch {}, expected step {} of epoch {}", rank,
          result->step, result->epoch, outcome.results.back().step,
          outcome.results.back().epoch);
    } else {
      MergeDiskReport(*result, &outcome.results.back());
    }
  }
  return outcome;
}

void RankGroup::Abort(const absl::Status& reason) {
  for (const auto& executor : executors_) {
    executor->Abort(reason);
  }
}

}  // namespace tessera::coordinator
