#include "coordinator/scheduler/block_manager.h"

#include <algorithm>

#include "common/check.h"
#include "common/status.h"

namespace tessera::coordinator {

absl::StatusOr<std::unique_ptr<BlockManager>> BlockManager::Create(
    const BlockManagerOptions& options) {
  constexpr int64_t kMaxTokens = int64_t{1} << 31;
  if (options.num_blocks < 1 || options.block_size < 1) {
    return InvalidArgumentF("{} kv blocks of {} tokens, expected at least one of each",
                            options.num_blocks, options.block_size);
  }
  if (options.num_blocks > kMaxTokens / options.block_size) {
    return InvalidArgumentF("{} kv blocks of {} tokens, expected at most {} tokens",
                            options.num_blocks, options.block_size, kMaxTokens);
  }
  return std::unique_ptr<BlockManager>(new BlockManager(options));
}

BlockManager::BlockManager(const BlockManagerOptions& options) : options_(options) {
  if (options.enable_prefix_caching) {
    tokens_.resize(static_cast<size_t>(options.num_blocks * options.block_size));
    index_.reserve(static_cast<size_t>(options.num_blocks));
  }
  Reset();
}

void BlockManager::Reset() {
  const auto count = static_cast<size_t>(options_.num_blocks);
  blocks_.assign(count, Block());
  free_.resize(count);
  // Low ids on top of the stack: small runs touch few pages of the pool.
  for (size_t i = 0; i < count; ++i) {
    free_[i] = static_cast<BlockId>(count - 1 - i);
  }
  index_.clear();
  newest_ = oldest_ = kNone;
  num_cached_ = 0;
  ++release_count_;
}

std::span<int32_t> BlockManager::TokensOf(BlockId block) {
  const auto width = static_cast<size_t>(options_.block_size);
  return std::span(tokens_).subspan(block * width, width);
}

std::span<const int32_t> BlockManager::TokensOf(BlockId block) const {
  const auto width = static_cast<size_t>(options_.block_size);
  return std::span(tokens_).subspan(block * width, width);
}

bool BlockManager::Holds(BlockId block, const PrefixQuery& query, int64_t idx,
                         uint64_t parent_serial) const {
  const Block& found = blocks_[block];
  if (found.parent_serial != parent_serial ||
      (idx == 0 && found.tenant != query.tenant)) {
    return false;
  }
  const auto width = static_cast<size_t>(options_.block_size);
  const auto wanted = query.tokens.subspan(static_cast<size_t>(idx) * width, width);
  const auto held = TokensOf(block);
  return std::equal(wanted.begin(), wanted.end(), held.begin());
}

PrefixMatch BlockManager::Match(const PrefixQuery& query) const {
  PrefixMatch match;
  if (!options_.enable_prefix_caching) {
    return match;
  }
  uint64_t parent_serial = 0;
  const int64_t limit = std::min<int64_t>(query.max_blocks, std::ssize(query.keys));
  for (int64_t idx = 0; idx < limit; ++idx) {
    const auto found = index_.find(query.keys[static_cast<size_t>(idx)]);
    if (found == index_.end() || !Holds(found->second, query, idx, parent_serial)) {
      break;
    }
    const Block& block = blocks_[found->second];
    parent_serial = block.serial;
    match.blocks.push_back(found->second);
    match.num_unreferenced += block.reference_count == 0 ? 1 : 0;
  }
  return match;
}

PrefixCursor BlockManager::Acquire(const PrefixMatch& match) {
  PrefixCursor cursor;
  for (const BlockId id : match.blocks) {
    Block& block = blocks_[id];
    if (block.reference_count == 0) {
      Unlink(id);
    }
    ++block.reference_count;
    cursor.last_block = id;
    cursor.last_serial = block.serial;
    ++cursor.num_blocks;
  }
  return cursor;
}

bool BlockManager::Allocate(int64_t count, std::vector<BlockId>* blocks) {
  if (count > num_free()) {
    return false;
  }
  for (int64_t i = 0; i < count; ++i) {
    if (free_.empty()) {
      const BlockId victim = oldest_;
      Unlink(victim);
      Unregister(victim);
      ++num_evictions_;
      free_.push_back(victim);
    }
    const BlockId id = free_.back();
    free_.pop_back();
    TESSERA_CHECK_EQ(blocks_[id].reference_count, 0);
    blocks_[id].reference_count = 1;
    blocks->push_back(id);
  }
  return true;
}

void BlockManager::Release(std::span<const BlockId> blocks) {
  ++release_count_;
  // From the end: a block is of no use without those before it, so the last must be the
  // oldest.
  for (auto id = blocks.rbegin(); id != blocks.rend(); ++id) {
    Block& block = blocks_[*id];
    TESSERA_CHECK_LT(0, block.reference_count);
    if (--block.reference_count > 0) {
      continue;
    }
    if (block.serial != 0) {
      LinkNewest(*id);
    } else {
      free_.push_back(*id);
    }
  }
}

void BlockManager::Register(const PrefixQuery& query, BlockId id, PrefixCursor* cursor) {
  if (!options_.enable_prefix_caching || cursor->broken) {
    return;
  }
  const bool first = cursor->num_blocks == 0;
  if (!first && blocks_[cursor->last_block].serial != cursor->last_serial) {
    // The content before it was another sequence's copy and has been evicted.
    cursor->broken = true;
    return;
  }
  TESSERA_CHECK_LT(0, blocks_[id].reference_count);
  const int64_t idx = cursor->num_blocks;
  const uint64_t parent_serial = first ? 0 : cursor->last_serial;
  const PrefixKey& key = query.keys[static_cast<size_t>(idx)];
  const auto found = index_.find(key);
  if (found != index_.end() && Holds(found->second, query, idx, parent_serial)) {
    id = found->second;
  } else {
    if (found != index_.end()) {
      // A true collision, or what is left of a chain whose start was evicted.
      const BlockId stale = found->second;
      Unregister(stale);
      if (blocks_[stale].reference_count == 0) {
        Unlink(stale);
        free_.push_back(stale);
      }
    }
    TESSERA_CHECK_EQ(blocks_[id].serial, 0u);
    Block& block = blocks_[id];
    block.serial = next_serial_++;
    block.key = key;
    block.parent_serial = parent_serial;
    block.tenant = first ? std::string(query.tenant) : std::string();
    const auto width = static_cast<size_t>(options_.block_size);
    const auto tokens = query.tokens.subspan(static_cast<size_t>(idx) * width, width);
    std::copy(tokens.begin(), tokens.end(), TokensOf(id).begin());
    index_[key] = id;
  }
  cursor->last_block = id;
  cursor->last_serial = blocks_[id].serial;
  ++cursor->num_blocks;
}

void BlockManager::Unregister(BlockId id) {
  Block& block = blocks_[id];
  index_.erase(block.key);
  block.serial = 0;
  block.parent_serial = 0;
  block.tenant.clear();
}

void BlockManager::LinkNewest(BlockId id) {
  Block& block = blocks_[id];
  block.older = newest_;
  block.newer = kNone;
  if (newest_ != kNone) {
    blocks_[newest_].newer = id;
  } else {
    oldest_ = id;
  }
  newest_ = id;
  ++num_cached_;
}

void BlockManager::Unlink(BlockId id) {
  Block& block = blocks_[id];
  (block.newer != kNone ? blocks_[block.newer].older : newest_) = block.older;
  (block.older != kNone ? blocks_[block.older].newer : oldest_) = block.newer;
  block.newer = block.older = kNone;
  --num_cached_;
}

absl::Status BlockManager::CheckInvariants() const {
  std::vector<int> places(blocks_.size(), 0);
  for (const BlockId id : free_) {
    ++places[id];
    if (blocks_[id].reference_count != 0 || blocks_[id].serial != 0) {
      return InternalF("free block {} has {} references and serial {}", id,
                       blocks_[id].reference_count, blocks_[id].serial);
    }
  }
  int64_t cached = 0;
  for (BlockId id = newest_; id != kNone; id = blocks_[id].older) {
    ++places[id];
    ++cached;
    if (blocks_[id].reference_count != 0 || blocks_[id].serial == 0) {
      return InternalF("cached block {} has {} references and serial {}", id,
                       blocks_[id].reference_count, blocks_[id].serial);
    }
  }
  if (cached != num_cached_) {
    return InternalF("{} blocks in the cached list, expected {}", cached, num_cached_);
  }
  int64_t registered = 0;
  for (size_t id = 0; id < blocks_.size(); ++id) {
    const int expected = blocks_[id].reference_count == 0 ? 1 : 0;
    if (places[id] != expected || blocks_[id].reference_count < 0) {
      return InternalF("block {} with {} references is in {} lists", id,
                       blocks_[id].reference_count, places[id]);
    }
    registered += blocks_[id].serial != 0 ? 1 : 0;
  }
  for (const auto& [key, id] : index_) {
    if (blocks_[id].serial == 0 || blocks_[id].key != key) {
      return InternalF("the index names block {} for content that it does not hold", id);
    }
  }
  if (registered != static_cast<int64_t>(index_.size())) {
    return InternalF("{} registered blocks, {} in the index", registered, index_.size());
  }
  return absl::OkStatus();
}

}  // namespace tessera::coordinator
