#include "coordinator/scheduler/block_pool.h"

#include "common/check.h"
#include "common/status.h"

namespace tessera::coordinator {

BlockPool::BlockPool(int64_t num_blocks) : blocks_(static_cast<size_t>(num_blocks)) {
  TESSERA_CHECK_LE(num_blocks, int64_t{1} << 31);
  Reset();
}

void BlockPool::Reset() {
  const size_t count = blocks_.size();
  blocks_.assign(count, Block());
  free_.resize(count);
  // Low ids on top of the stack: small runs touch few pages of the pool.
  for (size_t i = 0; i < count; ++i) {
    free_[i] = static_cast<BlockId>(count - 1 - i);
  }
  newest_ = oldest_ = kNoBlock;
  num_cached_ = 0;
  ++release_count_;
}

bool BlockPool::Allocate(int64_t count, std::vector<BlockId>* blocks,
                         absl::FunctionRef<void(BlockId)> evicted) {
  if (count > num_free()) {
    return false;
  }
  for (int64_t i = 0; i < count; ++i) {
    if (free_.empty()) {
      const BlockId victim = oldest_;
      ClearContent(victim);
      ++num_evictions_;
      evicted(victim);
    }
    const BlockId id = free_.back();
    free_.pop_back();
    TESSERA_CHECK_EQ(blocks_[id].reference_count, 0);
    blocks_[id].reference_count = 1;
    blocks->push_back(id);
  }
  return true;
}

void BlockPool::Reference(BlockId id) {
  Block& block = blocks_[id];
  if (block.reference_count == 0) {
    TESSERA_CHECK(block.has_content);
    Unlink(id);
  }
  ++block.reference_count;
}

void BlockPool::Release(std::span<const BlockId> blocks) {
  ++release_count_;
  // From the end: a block is of no use without those before it, so the last must be the
  // oldest.
  for (auto id = blocks.rbegin(); id != blocks.rend(); ++id) {
    Block& block = blocks_[*id];
    TESSERA_CHECK_LT(0, block.reference_count);
    if (--block.reference_count > 0) {
      continue;
    }
    if (block.has_content) {
      LinkNewest(*id);
    } else {
      free_.push_back(*id);
    }
  }
}

void BlockPool::SetContent(BlockId id) {
  TESSERA_CHECK_LT(0, blocks_[id].reference_count);
  blocks_[id].has_content = true;
}

void BlockPool::ClearContent(BlockId id) {
  Block& block = blocks_[id];
  if (!block.has_content) {
    return;
  }
  block.has_content = false;
  if (block.reference_count == 0) {
    Unlink(id);
    free_.push_back(id);
  }
}

void BlockPool::LinkNewest(BlockId id) {
  Block& block = blocks_[id];
  block.older = newest_;
  block.newer = kNoBlock;
  if (newest_ != kNoBlock) {
    blocks_[newest_].newer = id;
  } else {
    oldest_ = id;
  }
  newest_ = id;
  ++num_cached_;
}

void BlockPool::Unlink(BlockId id) {
  Block& block = blocks_[id];
  (block.newer != kNoBlock ? blocks_[block.newer].older : newest_) = block.older;
  (block.older != kNoBlock ? blocks_[block.older].newer : oldest_) = block.newer;
  block.newer = block.older = kNoBlock;
  --num_cached_;
}

absl::Status BlockPool::CheckInvariants() const {
  std::vector<int> places(blocks_.size(), 0);
  for (const BlockId id : free_) {
    ++places[id];
    if (blocks_[id].reference_count != 0 || blocks_[id].has_content) {
      return InternalF("free block {} has {} references, content: {}", id,
                       blocks_[id].reference_count, blocks_[id].has_content);
    }
  }
  int64_t cached = 0;
  for (BlockId id = newest_; id != kNoBlock; id = blocks_[id].older) {
    ++places[id];
    ++cached;
    if (blocks_[id].reference_count != 0 || !blocks_[id].has_content) {
      return InternalF("cached block {} has {} references, content: {}", id,
                       blocks_[id].reference_count, blocks_[id].has_content);
    }
  }
  if (cached != num_cached_) {
    return InternalF("{} blocks in the cached list, expected {}", cached, num_cached_);
  }
  for (size_t id = 0; id < blocks_.size(); ++id) {
    const int expected = blocks_[id].reference_count == 0 ? 1 : 0;
    if (places[id] != expected || blocks_[id].reference_count < 0) {
      return InternalF("block {} with {} references is in {} lists", id,
                       blocks_[id].reference_count, places[id]);
    }
  }
  return absl::OkStatus();
}

}  // namespace tessera::coordinator
