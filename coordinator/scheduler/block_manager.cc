#include "coordinator/scheduler/block_manager.h"

#include <algorithm>

#include "common/check.h"
#include "common/status.h"
#include "common/status_macros.h"

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
  if (options.num_tail_blocks != 0 || options.tail_tokens != 0) {
    const int64_t least = MinTailBlocks(options.tail_tokens, options.block_size);
    if (options.tail_tokens < 1 || options.num_tail_blocks < least ||
        options.num_tail_blocks > kMaxTokens / options.block_size) {
      return InvalidArgumentF(
          "{} tail blocks of {} tokens for {} tail tokens, expected {} to {}",
          options.num_tail_blocks, options.block_size, options.tail_tokens, least,
          kMaxTokens / options.block_size);
    }
  }
  return std::unique_ptr<BlockManager>(new BlockManager(options));
}

BlockManager::BlockManager(const BlockManagerOptions& options)
    : options_(options),
      pool_(options.num_blocks),
      tails_(options.num_tail_blocks, options.num_blocks),
      blocks_(static_cast<size_t>(options.num_blocks)) {
  if (options.enable_prefix_caching) {
    tokens_.resize(static_cast<size_t>(options.num_blocks * options.block_size));
    index_.reserve(static_cast<size_t>(options.num_blocks));
  }
}

void BlockManager::Reset() {
  pool_.Reset();
  tails_.Reset();
  blocks_.assign(blocks_.size(), Block());
  index_.clear();
}

int64_t BlockManager::MinTailBlocks(int64_t tail_tokens, int64_t block_size) {
  // A token and the `tail_tokens` before it span no more, wherever they lie.
  return (tail_tokens + block_size - 1) / block_size + 1;
}

int64_t BlockManager::num_tails_of_prefix(int64_t num_blocks) const {
  if (!has_tails()) {
    return 0;
  }
  const int64_t block_size = options_.block_size;
  return std::min((options_.tail_tokens + block_size - 1) / block_size, num_blocks);
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
    parent_serial = blocks_[found->second].serial;
    match.blocks.push_back(found->second);
  }
  MatchTails(&match);
  return match;
}

void BlockManager::MatchTails(PrefixMatch* match) const {
  if (has_tails()) {
    int64_t longest = 0;
    int64_t present = 0;  // tail blocks in a row up to here
    for (int64_t idx = 0; idx < std::ssize(match->blocks); ++idx) {
      const bool found = tails_.Of(match->blocks[static_cast<size_t>(idx)]) != kNoBlock;
      present = found ? present + 1 : 0;
      longest = present >= num_tails_of_prefix(idx + 1) ? idx + 1 : longest;
    }
    match->num_shortened = std::ssize(match->blocks) - longest;
    match->blocks.resize(static_cast<size_t>(longest));
    for (int64_t idx = longest - num_tails_of_prefix(longest); idx < longest; ++idx) {
      match->tail_blocks.push_back(tails_.Of(match->blocks[static_cast<size_t>(idx)]));
    }
  }
  for (const BlockId id : match->blocks) {
    match->num_unreferenced += pool_.reference_count(id) == 0 ? 1 : 0;
  }
  for (const BlockId id : match->tail_blocks) {
    match->num_unreferenced_tails += tail_pool().reference_count(id) == 0 ? 1 : 0;
  }
}

PrefixCursor BlockManager::Acquire(const PrefixMatch& match) {
  PrefixCursor cursor;
  for (const BlockId id : match.blocks) {
    pool_.Reference(id);
    cursor.last_block = id;
    cursor.last_serial = blocks_[id].serial;
    ++cursor.num_blocks;
  }
  for (const BlockId id : match.tail_blocks) {
    tails_.Reference(id);
  }
  return cursor;
}

bool BlockManager::Allocate(int64_t count, std::vector<BlockId>* blocks) {
  return pool_.Allocate(count, blocks, [this](BlockId victim) { Unregister(victim); });
}

bool BlockManager::AllocateTails(int64_t count, std::vector<BlockId>* blocks) {
  return tails_.Allocate(count, blocks);
}

void BlockManager::Release(std::span<const BlockId> blocks) { pool_.Release(blocks); }

void BlockManager::ReleaseTails(std::span<const BlockId> blocks) {
  tails_.Release(blocks);
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
  TESSERA_CHECK_LT(0, pool_.reference_count(id));
  const int64_t idx = cursor->num_blocks;
  const uint64_t parent_serial = first ? 0 : cursor->last_serial;
  const PrefixKey& key = query.keys[static_cast<size_t>(idx)];
  const auto found = index_.find(key);
  if (found != index_.end() && Holds(found->second, query, idx, parent_serial)) {
    id = found->second;
  } else {
    if (found != index_.end()) {
      // A true collision, or what is left of a chain whose start was evicted.
      Unregister(found->second);
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
    pool_.SetContent(id);
  }
  cursor->last_block = id;
  cursor->last_serial = blocks_[id].serial;
  ++cursor->num_blocks;
}

void BlockManager::KeepTail(const PrefixCursor& cursor, BlockId tail) {
  if (!options_.enable_prefix_caching || cursor.broken || cursor.num_blocks == 0 ||
      blocks_[cursor.last_block].serial != cursor.last_serial) {
    return;
  }
  tails_.Attach(cursor.last_block, tail);
}

void BlockManager::Unregister(BlockId id) {
  Block& block = blocks_[id];
  index_.erase(block.key);
  block.serial = 0;
  block.parent_serial = 0;
  block.tenant.clear();
  pool_.ClearContent(id);
  tails_.Detach(id);
}

absl::Status BlockManager::CheckInvariants() const {
  TESSERA_RETURN_IF_ERROR(pool_.CheckInvariants());
  TESSERA_RETURN_IF_ERROR(tails_.CheckInvariants());
  int64_t registered = 0;
  for (size_t idx = 0; idx < blocks_.size(); ++idx) {
    const auto id = static_cast<BlockId>(idx);
    if ((blocks_[idx].serial != 0) != pool_.has_content(id)) {
      return InternalF("block {} has serial {}, content: {}", id, blocks_[idx].serial,
                       pool_.has_content(id));
    }
    if (blocks_[idx].serial == 0 && tails_.Of(id) != kNoBlock) {
      return InternalF("block {} is not registered and has tail block {}", id,
                       tails_.Of(id));
    }
    registered += blocks_[idx].serial != 0 ? 1 : 0;
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
