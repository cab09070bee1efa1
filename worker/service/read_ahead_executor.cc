#include "worker/service/read_ahead_executor.h"

#include <algorithm>
#include <utility>

namespace tessera::worker {

ReadAheadExecutor::ReadAheadExecutor(const ReadAheadOptions& options,
                                     std::unique_ptr<proto::StepExecutor> executor,
                                     const engram_store::EngramHash* hash,
                                     engram_store::EngramSource* source)
    : options_(options),
      executor_(std::move(executor)),
      hash_(hash),
      source_(source),
      tails_(options.max_slots) {}

absl::Status ReadAheadExecutor::Submit(proto::StepPlan plan) {
  // Without a step before it the plan runs at once, and asks for its rows itself.
  Follow(plan, /*announces=*/in_flight_.load() > 0);
  absl::Status status = executor_->Submit(std::move(plan));
  if (status.ok()) {
    in_flight_.fetch_add(1);
  }
  return status;
}

absl::Status ReadAheadExecutor::SubmitLate(proto::LateInput late) {
  return executor_->SubmitLate(std::move(late));
}

absl::StatusOr<proto::StepResult> ReadAheadExecutor::Wait(absl::Time deadline) {
  absl::StatusOr<proto::StepResult> result = executor_->Wait(deadline);
  if (result.ok()) {
    in_flight_.fetch_sub(1);
  }
  return result;
}

void ReadAheadExecutor::Abort(absl::Status reason) {
  executor_->Abort(std::move(reason));
}

void ReadAheadExecutor::Follow(const proto::StepPlan& plan, bool announces) {
  for (const uint32_t slot : plan.releases) {
    if (slot < tails_.size()) {
      tails_[slot].known = false;
    }
  }
  for (const proto::SlotAdmission& admission : plan.admissions) {
    if (admission.slot < tails_.size()) {
      Tail& tail = tails_[admission.slot];
      tail = {.tokens = admission.history, .known = true, .from_start = true};
      Shorten(&tail);
    }
  }
  for (const proto::SlotWork& work : plan.work) {
    if (work.slot < tails_.size()) {
      FollowWork(work, announces);
    }
  }
}

void ReadAheadExecutor::FollowWork(const proto::SlotWork& work, bool announces) {
  Tail& tail = tails_[work.slot];
  // After a sampled token nobody here knows what comes before the next.
  tail.known = tail.known && !work.from_sample;
  if (!tail.known) {
    return;
  }
  const auto begin = static_cast<int64_t>(tail.tokens.size());
  tail.tokens.insert(tail.tokens.end(), work.tokens.begin(), work.tokens.end());
  if (announces && !work.tokens.empty() && AreTokens(tail.tokens)) {
    Announce(tail, begin);
  }
  tail.known = !work.sample;
  Shorten(&tail);
}

void ReadAheadExecutor::Announce(const Tail& tail, int64_t begin) {
  const size_t count = tail.tokens.size() - static_cast<size_t>(begin);
  row_ids_.resize(count * static_cast<size_t>(hash_->num_columns()));
  for (size_t table = 0; table < source_->tables().size(); ++table) {
    hash_->RowIds(static_cast<int64_t>(table), tail.tokens, begin, tail.from_start, {},
                  row_ids_);
    source_->Prefetch(table, row_ids_);
  }
}

void ReadAheadExecutor::Shorten(Tail* tail) const {
  const size_t lookback =
      static_cast<size_t>(std::max<int64_t>(options_.max_ngram, 1)) - 1;
  if (tail->tokens.size() > lookback) {
    tail->tokens.erase(tail->tokens.begin(),
                       tail->tokens.end() - static_cast<ptrdiff_t>(lookback));
    tail->from_start = false;
  }
}

bool ReadAheadExecutor::AreTokens(const std::vector<int32_t>& ids) const {
  return std::ranges::all_of(
      ids, [this](int32_t id) { return id >= 0 && id < hash_->num_token_ids(); });
}

}  // namespace tessera::worker
