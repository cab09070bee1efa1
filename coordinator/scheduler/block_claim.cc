#include "coordinator/scheduler/block_claim.h"

#include <iterator>

namespace tessera::coordinator {
namespace {

// After so many nobody overtakes any more.
constexpr int64_t kMaxOvertakers = 4096;

}  // namespace

void BlockClaim::Take(Sequence* holder, int dp_rank, int64_t num_blocks) {
  if (holder_ != nullptr && holder_->spec.priority <= holder->spec.priority) {
    return;
  }
  holder_ = holder;
  dp_rank_ = dp_rank;
  num_blocks_ = num_blocks;
  ++id_;
  num_overtakers_ = 0;
  makes_room_ = false;
}

void BlockClaim::MakeRoom(int dp_rank) {
  dp_rank_ = dp_rank;
  makes_room_ = true;
}

void BlockClaim::Drop(const Sequence& sequence) {
  if (HeldBy(sequence)) {
    holder_ = nullptr;
    ++num_drops_;
  }
}

bool BlockClaim::Allows(const Sequence& sequence, int dp_rank, int64_t num_blocks,
                        std::span<Sequence* const> running, int64_t total_blocks) const {
  if (holder_ == nullptr || HeldBy(sequence) || dp_rank != dp_rank_ ||
      sequence.spec.priority < holder_->spec.priority) {
    return true;
  }
  if (makes_room_ && sequence.spec.priority > holder_->spec.priority) {
    return false;
  }
  int64_t held = num_blocks;
  for (const Sequence* other : running) {
    held += other->overtook == id_ ? std::ssize(other->blocks) : 0;
  }
  return num_overtakers_ < kMaxOvertakers && 2 * held <= total_blocks - num_blocks_;
}

void BlockClaim::Admitted(Sequence* sequence, int dp_rank) {
  Drop(*sequence);
  sequence->overtook = 0;
  if (holder_ != nullptr && dp_rank == dp_rank_) {
    sequence->overtook = id_;
    ++num_overtakers_;
  }
}

}  // namespace tessera::coordinator
