#include "coordinator/api/http/output_queue.h"

#include <utility>

#include "common/check.h"

namespace tessera::coordinator {

std::string_view OutputQueue::Begin() {
  TESSERA_CHECK(!writing_);
  writing_ = true;
  if (pending_.size() <= kWriteBytes) {
    std::swap(in_flight_, pending_);
    pending_.clear();
  } else {
    in_flight_.assign(pending_, 0, kWriteBytes);
    pending_.erase(0, kWriteBytes);
  }
  return in_flight_;
}

void OutputQueue::Finish() {
  writing_ = false;
  in_flight_.clear();
}

void OutputQueue::Shrink() {
  TESSERA_CHECK(!writing_ && pending_.empty());
  pending_ = std::string();
  in_flight_ = std::string();
}

bool OutputQueue::Check(const BacklogLimits& limits, absl::Time now) {
  if (size() <= limits.bytes) {
    over_since_.reset();
    return true;
  }
  if (!over_since_.has_value()) {
    over_since_ = now;
  }
  return size() <= limits.bytes_max && now - *over_since_ <= limits.time;
}

}  // namespace tessera::coordinator
