#include "coordinator/scheduler/block_pool.h"

#include <algorithm>

#include "common/check.h"
#include "common/status.h"
#include "common/status_macros.h"

namespace tessera::coordinator {

BlockPool::BlockPool(int64_t num_blocks, std::span<const int64_t> floors)
    : blocks_(static_cast<size_t>(num_blocks)), groups_(1 + floors.size()) {
  TESSERA_CHECK_LE(num_blocks, int64_t{1} << 31);
  for (size_t i = 0; i < floors.size(); ++i) {
    groups_[1 + i].floor = floors[i];
  }
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
  for (Group& group : groups_) {
    group = {.floor = group.floor};
  }
  num_cached_ = 0;
  ++release_count_;
}

int64_t BlockPool::num_free_for(uint32_t group) const {
  auto count = static_cast<int64_t>(free_.size());
  for (uint32_t other = 0; other < groups_.size(); ++other) {
    const Group& cached = groups_[other];
    count += other == group ? cached.num_cached
                            : std::max<int64_t>(0, cached.num_cached - cached.floor);
  }
  return count;
}

BlockId BlockPool::Victim(uint32_t group) const {
  BlockId victim = kNoBlock;
  for (uint32_t other = 0; other < groups_.size(); ++other) {
    const Group& cached = groups_[other];
    const bool open =
        other == group ? cached.num_cached > 0 : cached.num_cached > cached.floor;
    if (open &&
        (victim == kNoBlock || blocks_[cached.oldest].age < blocks_[victim].age)) {
      victim = cached.oldest;
    }
  }
  return victim;
}

bool BlockPool::Allocate(int64_t count, std::vector<BlockId>* blocks,
                         absl::FunctionRef<void(BlockId)> evicted, uint32_t group) {
  if (count > num_free_for(group)) {
    return false;
  }
  for (int64_t i = 0; i < count; ++i) {
    if (free_.empty()) {
      const BlockId victim = Victim(group);
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

void BlockPool::SetContent(BlockId id, uint32_t group) {
  TESSERA_CHECK_LT(0, blocks_[id].reference_count);
  TESSERA_CHECK_LT(group, groups_.size());
  blocks_[id].has_content = true;
  blocks_[id].group = group;
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
  Group& group = groups_[block.group];
  block.age = next_age_++;
  block.older = group.newest;
  block.newer = kNoBlock;
  (group.newest != kNoBlock ? blocks_[group.newest].newer : group.oldest) = id;
  group.newest = id;
  ++group.num_cached;
  ++num_cached_;
}

void BlockPool::Unlink(BlockId id) {
  Block& block = blocks_[id];
  Group& group = groups_[block.group];
  (block.newer != kNoBlock ? blocks_[block.newer].older : group.newest) = block.older;
  (block.older != kNoBlock ? blocks_[block.older].newer : group.oldest) = block.newer;
  block.newer = block.older = kNoBlock;
  --group.num_cached;
  --num_cached_;
}

absl::Status BlockPool::CheckList(const Group& group, std::vector<int>* places) const {
  int64_t cached = 0;
  for (BlockId id = group.newest; id != kNoBlock; id = blocks_[id].older) {
    const Block& block = blocks_[id];
    ++(*places)[id];
    ++cached;
    if (block.reference_count != 0 || !block.has_content ||
        &groups_[block.group] != &group) {
      return InternalF("cached block {} has {} references, content: {}, of group {}", id,
                       block.reference_count, block.has_content, block.group);
    }
  }
  if (cached != group.num_cached) {
    return InternalF("{} blocks in a cached list, expected {}", cached, group.num_cached);
  }
  return absl::OkStatus();
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
  for (const Group& group : groups_) {
    TESSERA_RETURN_IF_ERROR(CheckList(group, &places));
    cached += group.num_cached;
  }
  if (cached != num_cached_) {
    return InternalF("{} blocks in the cached lists, expected {}", cached, num_cached_);
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
