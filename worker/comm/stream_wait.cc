#include "worker/comm/stream_wait.h"

#include <algorithm>
#include <string>

#include "common/status.h"
#include "common/status_macros.h"
#include "worker/comm/back_off.h"
#include "worker/comm/stream_communicator.h"

namespace tessera::worker {

StreamWait::StreamWait(std::initializer_list<Communicator*> groups, Clock* clock)
    : timeout_(absl::InfiniteDuration()), clock_(clock) {
  for (Communicator* const group : groups) {
    if (group == nullptr) {
      continue;
    }
    groups_.push_back(group);
    if (group->on_stream() != nullptr && group->size() > 1) {
      on_stream_.push_back(group);
      timeout_ = std::min(timeout_, group->on_stream()->timeout());
    }
  }
}

absl::Status StreamWait::CheckGroups() const {
  for (Communicator* const group : on_stream_) {
    TESSERA_RETURN_IF_ERROR(group->on_stream()->Check());
  }
  return absl::OkStatus();
}

absl::Status StreamWait::Synchronize(kernels::Stream& stream) {
  if (on_stream_.empty()) {
    return stream.Synchronize();
  }
  absl::Time deadline = clock_->Now() + timeout_;
  for (int polls = 0;; ++polls) {
    const absl::Time now = clock_->Now();
    // In this order: what is done is done, though a peer that was here with us has left
    // since.
    absl::Status alive = CheckGroups();
    if (alive.ok() && now >= deadline) {
      const Communicator& first = *on_stream_.front();
      alive = DeadlineExceededF(
          "{} rank {}: the stream is not done within {}: another rank is missing",
          first.name(), first.rank(), absl::FormatDuration(timeout_));
    }
    const absl::StatusOr<bool> done = stream.Poll();
    if (done.ok() && *done) {
      return absl::OkStatus();
    }
    deadline += clock_->Now() - now;  // a simulated device works in these
    const absl::Status status = done.ok() ? alive : done.status();
    if (!status.ok()) {
      error_.Update(status);
      EndGroups(std::string_view(status.message().data(), status.message().size()));
      return status;
    }
    BackOff(polls, clock_);
  }
}

void StreamWait::GiveUp(kernels::Stream& stream, std::string_view reason) {
  if (on_stream_.empty()) {
    return;
  }
  const bool alive = CheckGroups().ok();
  const absl::StatusOr<bool> done = stream.Poll();
  if (!alive || !done.ok() || !*done) {
    EndGroups(reason);
  }
}

void StreamWait::EndGroups(std::string_view reason) {
  if (on_stream_.empty()) {
    return;
  }
  for (Communicator* const group : groups_) {
    group->Abort(reason);
  }
  for (Communicator* const group : on_stream_) {
    group->on_stream()->End(reason);
  }
}

}  // namespace tessera::worker
