#include "coordinator/scheduler/tail_blocks.h"

#include <algorithm>

#include "common/check.h"
#include "common/status.h"
#include "common/status_macros.h"

namespace tessera::coordinator {

TailBlocks::TailBlocks(int64_t num_blocks, int64_t num_kv_blocks,
                       std::span<const int64_t> floors)
    : pool_(num_blocks, floors),
      tail_of_(static_cast<size_t>(num_blocks == 0 ? 0 : num_kv_blocks), kNoBlock),
      owner_(static_cast<size_t>(num_blocks), kNoBlock) {}

void TailBlocks::Reset() {
  pool_.Reset();
  std::fill(tail_of_.begin(), tail_of_.end(), kNoBlock);
  std::fill(owner_.begin(), owner_.end(), kNoBlock);
}

void TailBlocks::Attach(BlockId kv_block, BlockId tail, uint32_t group) {
  // A sequence attaches the tail blocks that it wrote, each once.
  TESSERA_CHECK_EQ(owner_[tail], kNoBlock);
  if (tail_of_[kv_block] != kNoBlock) {
    return;
  }
  tail_of_[kv_block] = tail;
  owner_[tail] = kv_block;
  pool_.SetContent(tail, group);
}

void TailBlocks::Detach(BlockId kv_block) {
  const BlockId tail = Of(kv_block);
  if (tail == kNoBlock) {
    return;
  }
  tail_of_[kv_block] = kNoBlock;
  owner_[tail] = kNoBlock;
  pool_.ClearContent(tail);
}

bool TailBlocks::Allocate(int64_t count, std::vector<BlockId>* blocks,
                          absl::FunctionRef<void(BlockId, BlockId)> evicted,
                          uint32_t group) {
  return pool_.Allocate(
      count, blocks,
      [&](BlockId tail) {
        evicted(owner_[tail], tail);
        tail_of_[owner_[tail]] = kNoBlock;
        owner_[tail] = kNoBlock;
      },
      group);
}

absl::Status TailBlocks::CheckInvariants() const {
  TESSERA_RETURN_IF_ERROR(pool_.CheckInvariants());
  for (size_t tail = 0; tail < owner_.size(); ++tail) {
    const auto id = static_cast<BlockId>(tail);
    const BlockId owner = owner_[tail];
    if ((owner != kNoBlock) != pool_.has_content(id) ||
        (owner != kNoBlock && tail_of_[owner] != id)) {
      return InternalF("tail block {} is kept with kv block {}, which disagrees", id,
                       owner);
    }
  }
  const auto attached = [](BlockId block) { return block != kNoBlock; };
  const auto owners = std::count_if(owner_.begin(), owner_.end(), attached);
  const auto tails = std::count_if(tail_of_.begin(), tail_of_.end(), attached);
  if (owners != tails) {
    return InternalF("{} tail blocks have an owner, {} kv blocks a tail block", owners,
                     tails);
  }
  return absl::OkStatus();
}

}  // namespace tessera::coordinator
