#include "coordinator/scheduler/block_manager.h"

#include <algorithm>
#include <utility>

#include "common/check.h"
#include "common/status.h"
#include "common/status_macros.h"

namespace tessera::coordinator {

namespace {

constexpr int64_t kMaxTokens = int64_t{1} << 31;

absl::Status CheckTiers(const BlockManagerOptions& options) {
  const int64_t most = kMaxTokens / options.block_size;
  if (options.num_host_blocks < 0 || options.num_host_blocks > most ||
      options.num_host_tail_blocks < 0 || options.num_host_tail_blocks > most) {
    return InvalidArgumentF("{} host blocks and {} host tail blocks, expected 0 to {}",
                            options.num_host_blocks, options.num_host_tail_blocks, most);
  }
  if (options.num_host_blocks > 0 && !options.enable_prefix_caching) {
    return InvalidArgumentF("{} host blocks, expected none without prefix caching",
                            options.num_host_blocks);
  }
  if (options.num_disk_blocks < 0 || options.num_disk_blocks > most ||
      options.num_disk_tail_blocks < 0 || options.num_disk_tail_blocks > most) {
    return InvalidArgumentF("{} disk blocks and {} disk tail blocks, expected 0 to {}",
                            options.num_disk_blocks, options.num_disk_tail_blocks, most);
  }
  if (options.num_disk_blocks > 0 &&
      (options.num_host_blocks < 1 || options.max_disk_copies < 1)) {
    return InvalidArgumentF(
        "{} disk blocks with {} host blocks, into which they are fetched, and {} copies "
        "at once, expected at least one of each",
        options.num_disk_blocks, options.num_host_blocks, options.max_disk_copies);
  }
  int64_t left = options.num_blocks;
  for (const TenantFloor& floor : options.floors) {
    if (floor.num_blocks < 0 || floor.num_blocks > left) {
      return InvalidArgumentF(
          "tenant {} keeps {} cached blocks, expected 0 to {}: of {} the others keep {}",
          floor.tenant, floor.num_blocks, left, options.num_blocks,
          options.num_blocks - left);
    }
    left -= floor.num_blocks;
  }
  return absl::OkStatus();
}

std::vector<int64_t> FloorsOf(const BlockManagerOptions& options) {
  std::vector<int64_t> floors;
  for (const TenantFloor& floor : options.floors) {
    floors.push_back(floor.num_blocks);
  }
  return floors;
}

// The same part of `count` for each tenant as of the blocks.
std::vector<int64_t> SameParts(const BlockManagerOptions& options, int64_t count) {
  std::vector<int64_t> floors;
  for (const TenantFloor& floor : options.floors) {
    const double part =
        static_cast<double>(floor.num_blocks) / static_cast<double>(options.num_blocks);
    floors.push_back(static_cast<int64_t>(part * static_cast<double>(count)));
  }
  return floors;
}

std::vector<int64_t> TailFloorsOf(const BlockManagerOptions& options) {
  const int64_t least =
      BlockManager::MinTailBlocks(options.tail_tokens, options.block_size);
  return SameParts(options,
                   options.num_tail_blocks == 0 ? 0 : options.num_tail_blocks - least);
}

}  // namespace

absl::StatusOr<std::unique_ptr<BlockManager>> BlockManager::Create(
    const BlockManagerOptions& options) {
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
  TESSERA_RETURN_IF_ERROR(CheckTiers(options));
  return std::unique_ptr<BlockManager>(new BlockManager(options));
}

BlockManager::BlockManager(const BlockManagerOptions& options)
    : options_(options),
      pool_(options.num_blocks, FloorsOf(options)),
      tails_(options.num_tail_blocks, options.num_blocks, TailFloorsOf(options)),
      host_(options.num_host_blocks, options.num_host_tail_blocks, options.block_size,
            SameParts(options, options.num_host_blocks),
            SameParts(options, options.num_host_tail_blocks)),
      disk_({.num_blocks = options.num_disk_blocks,
             .num_tail_blocks = options.num_disk_tail_blocks,
             .block_size = options.block_size,
             .max_copies = options.max_disk_copies,
             .floors = SameParts(options, options.num_disk_blocks),
             .tail_floors = SameParts(options, options.num_disk_tail_blocks)}),
      block_copies_(options.num_blocks, options.num_host_blocks),
      tail_copies_(options.num_tail_blocks, options.num_host_tail_blocks),
      blocks_(static_cast<size_t>(options.num_blocks)) {
  for (const TenantFloor& floor : options.floors) {
    groups_.emplace(floor.tenant, static_cast<uint32_t>(groups_.size() + 1));
  }
  if (options.enable_prefix_caching) {
    tokens_.resize(static_cast<size_t>(options.num_blocks * options.block_size));
    index_.reserve(static_cast<size_t>(options.num_blocks));
  }
}

void BlockManager::Reset() {
  pool_.Reset();
  tails_.Reset();
  host_.Reset();
  disk_.Reset();
  block_copies_.Reset();
  tail_copies_.Reset();
  blocks_.assign(blocks_.size(), BlockContent());
  index_.clear();
}

uint32_t BlockManager::GroupOf(std::string_view tenant) const {
  const auto found = groups_.find(tenant);
  return found == groups_.end() ? 0 : found->second;
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

bool BlockManager::Is(const BlockContent& content, std::span<const int32_t> tokens,
                      const PrefixQuery& query, int64_t idx,
                      uint64_t parent_serial) const {
  if (content.parent_serial != parent_serial ||
      (idx == 0 && content.tenant != query.tenant)) {
    return false;
  }
  const auto width = static_cast<size_t>(options_.block_size);
  const auto wanted = query.tokens.subspan(static_cast<size_t>(idx) * width, width);
  return std::equal(wanted.begin(), wanted.end(), tokens.begin());
}

BlockId BlockManager::FindOnDevice(const PrefixQuery& query, int64_t idx,
                                   uint64_t parent_serial) const {
  const auto found = index_.find(query.keys[static_cast<size_t>(idx)]);
  if (found == index_.end()) {
    return kNoBlock;
  }
  const BlockId id = found->second;
  return Is(blocks_[id], TokensOf(id), query, idx, parent_serial) ? id : kNoBlock;
}

BlockId BlockManager::FindOnHost(const PrefixQuery& query, int64_t idx,
                                 uint64_t parent_serial) const {
  const BlockId id = host_.Find(query.keys[static_cast<size_t>(idx)]);
  return id != kNoBlock &&
                 Is(host_.content(id), host_.tokens(id), query, idx, parent_serial)
             ? id
             : kNoBlock;
}

PrefixMatch BlockManager::Match(const PrefixQuery& query) const {
  PrefixMatch match;
  std::vector<uint64_t> serials;
  uint64_t parent_serial = 0;
  const int64_t limit = options_.enable_prefix_caching
                            ? std::min<int64_t>(query.max_blocks, std::ssize(query.keys))
                            : 0;
  for (int64_t idx = 0; idx < limit; ++idx) {
    const BlockId block = FindOnDevice(query, idx, parent_serial);
    if (block != kNoBlock) {
      parent_serial = blocks_[block].serial;
    } else {
      const BlockId host = FindOnHost(query, idx, parent_serial);
      if (host == kNoBlock) {
        break;
      }
      parent_serial = host_.content(host).serial;
      match.host_blocks.push_back(host);
    }
    match.blocks.push_back(block);
    serials.push_back(parent_serial);
  }
  MatchTails(serials, &match);
  CountSpare(query.tenant, &match);
  return match;
}

void BlockManager::MatchTails(std::span<const uint64_t> serials,
                              PrefixMatch* match) const {
  if (!has_tails()) {
    return;
  }
  std::vector<BlockId>& blocks = match->blocks;
  const auto tail_of = [&](int64_t idx) {
    const BlockId block = blocks[static_cast<size_t>(idx)];
    return block == kNoBlock ? kNoBlock : tails_.Of(block);
  };
  const auto host_tail_of = [&](int64_t idx) {
    return host_.FindTail(serials[static_cast<size_t>(idx)]);
  };
  int64_t longest = 0;
  int64_t present = 0;  // tail blocks in a row up to here
  for (int64_t idx = 0; idx < std::ssize(blocks); ++idx) {
    const bool found = tail_of(idx) != kNoBlock || host_tail_of(idx) != kNoBlock;
    present = found ? present + 1 : 0;
    longest = present >= num_tails_of_prefix(idx + 1) ? idx + 1 : longest;
  }
  match->num_shortened = std::ssize(blocks) - longest;
  const auto left_out = std::count(blocks.begin() + longest, blocks.end(), kNoBlock);
  match->host_blocks.resize(match->host_blocks.size() - static_cast<size_t>(left_out));
  blocks.resize(static_cast<size_t>(longest));
  for (int64_t idx = longest - num_tails_of_prefix(longest); idx < longest; ++idx) {
    match->tail_blocks.push_back(tail_of(idx));
    if (match->tail_blocks.back() == kNoBlock) {
      match->host_tail_blocks.push_back(host_tail_of(idx));
    }
  }
}

void BlockManager::CountSpare(std::string_view tenant, PrefixMatch* match) const {
  // Taking a cached block uses up a free one; so does each that comes from the host. Of
  // cached blocks below its floor a tenant takes its own alone.
  match->num_spare = num_free_for(tenant) - std::ssize(match->host_blocks);
  for (const BlockId id : match->blocks) {
    match->num_spare -= id != kNoBlock && pool_.reference_count(id) == 0 ? 1 : 0;
  }
  match->num_spare_tails =
      num_free_tails_for(tenant) - std::ssize(match->host_tail_blocks);
  for (const BlockId id : match->tail_blocks) {
    match->num_spare_tails -=
        id != kNoBlock && tail_pool().reference_count(id) == 0 ? 1 : 0;
  }
}

PrefixCursor BlockManager::Acquire(std::string_view tenant, PrefixMatch* match) {
  // All that is there first: making room for the others must not evict it.
  for (const BlockId id : match->blocks) {
    if (id != kNoBlock) {
      pool_.Reference(id);
    }
  }
  for (const BlockId id : match->tail_blocks) {
    if (id != kNoBlock) {
      tails_.Reference(id);
    }
  }
  for (const BlockId host : match->host_blocks) {
    host_.Pin(host);
  }
  for (const BlockId host : match->host_tail_blocks) {
    host_.PinTail(host);
  }
  const uint32_t group = GroupOf(tenant);
  PrefixCursor cursor;
  auto host = match->host_blocks.begin();
  for (BlockId& id : match->blocks) {
    if (id == kNoBlock) {
      match->num_from_disk += host_.TakeCameFromDisk(*host) ? 1 : 0;
      Restore(*host++, group, &id);
    }
    cursor.last_block = id;
    cursor.last_serial = blocks_[id].serial;
    ++cursor.num_blocks;
  }
  auto host_tail = match->host_tail_blocks.begin();
  const size_t first = match->blocks.size() - match->tail_blocks.size();
  for (size_t i = 0; i < match->tail_blocks.size(); ++i) {
    if (match->tail_blocks[i] == kNoBlock) {
      RestoreTail(*host_tail++, match->blocks[first + i], group, &match->tail_blocks[i]);
    }
  }
  return cursor;
}

void BlockManager::Install(BlockId id, BlockContent content,
                           std::span<const int32_t> tokens, uint32_t group) {
  TESSERA_CHECK_EQ(blocks_[id].serial, 0u);
  const auto stale = index_.find(content.key);
  if (stale != index_.end()) {
    // A true collision, or what is left of a chain whose start was evicted.
    Unregister(stale->second);
  }
  index_[content.key] = id;
  blocks_[id] = std::move(content);
  std::copy(tokens.begin(), tokens.end(), TokensOf(id).begin());
  pool_.SetContent(id, group);
}

bool BlockManager::Allocate(int64_t count, std::vector<BlockId>* blocks,
                            std::string_view tenant) {
  return pool_.Allocate(
      count, blocks, [this](BlockId victim) { Evict(victim); }, GroupOf(tenant));
}

bool BlockManager::AllocateTails(int64_t count, std::vector<BlockId>* blocks,
                                 std::string_view tenant) {
  const auto evicted = [this](BlockId owner, BlockId id) { EvictTail(owner, id); };
  return tails_.Allocate(count, blocks, evicted, GroupOf(tenant));
}

void BlockManager::Release(std::span<const BlockId> blocks) {
  for (const BlockId id : blocks) {
    if (block_copies_.restoring(id) && pool_.reference_count(id) == 1) {
      host_.Unpin(block_copies_.GiveUpRestore(id));
      if (blocks_[id].serial != 0) {
        Unregister(id);
      }
    }
  }
  pool_.Release(blocks);
}

void BlockManager::ReleaseTails(std::span<const BlockId> tails) {
  for (const BlockId id : tails) {
    if (tail_copies_.restoring(id) && tail_pool().reference_count(id) == 1) {
      host_.UnpinTail(tail_copies_.GiveUpRestore(id));
      tails_.Forget(id);
    }
  }
  tails_.Release(tails);
}

bool BlockManager::Lives(const PrefixQuery& query, const PrefixCursor& cursor) const {
  if (blocks_[cursor.last_block].serial == cursor.last_serial) {
    return true;
  }
  // It was another sequence's copy; it may have gone elsewhere.
  const PrefixKey& key = query.keys[static_cast<size_t>(cursor.num_blocks - 1)];
  const auto found = index_.find(key);
  const BlockId host = host_.Find(key);
  return (found != index_.end() && blocks_[found->second].serial == cursor.last_serial) ||
         (host != kNoBlock && host_.content(host).serial == cursor.last_serial);
}

void BlockManager::Register(const PrefixQuery& query, BlockId id, PrefixCursor* cursor) {
  if (!options_.enable_prefix_caching || cursor->broken) {
    return;
  }
  const bool first = cursor->num_blocks == 0;
  if (!first && !Lives(query, *cursor)) {
    cursor->broken = true;
    return;
  }
  TESSERA_CHECK_LT(0, pool_.reference_count(id));
  const int64_t idx = cursor->num_blocks;
  const uint64_t parent_serial = first ? 0 : cursor->last_serial;
  const BlockId held = FindOnDevice(query, idx, parent_serial);
  if (held != kNoBlock) {
    id = held;
  } else {
    const auto width = static_cast<size_t>(options_.block_size);
    const BlockId host = FindOnHost(query, idx, parent_serial);
    BlockContent content;
    if (host != kNoBlock) {
      content = host_.content(host);  // The chain that goes on there stays whole.
    } else {
      content = {.serial = next_serial_++,
                 .key = query.keys[static_cast<size_t>(idx)],
                 .parent_serial = parent_serial,
                 .tenant = first ? std::string(query.tenant) : std::string()};
    }
    Install(id, std::move(content),
            query.tokens.subspan(static_cast<size_t>(idx) * width, width),
            GroupOf(query.tenant));
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
  tails_.Attach(cursor.last_block, tail, pool_.group(cursor.last_block));
}

void BlockManager::Unregister(BlockId id) {
  index_.erase(blocks_[id].key);
  blocks_[id] = BlockContent();
  pool_.ClearContent(id);
  tails_.Detach(id);
}

absl::Status BlockManager::CheckInvariants() const {
  TESSERA_RETURN_IF_ERROR(pool_.CheckInvariants());
  TESSERA_RETURN_IF_ERROR(tails_.CheckInvariants());
  TESSERA_RETURN_IF_ERROR(host_.CheckInvariants());
  TESSERA_RETURN_IF_ERROR(disk_.CheckInvariants());
  TESSERA_RETURN_IF_ERROR(block_copies_.CheckInvariants());
  TESSERA_RETURN_IF_ERROR(tail_copies_.CheckInvariants());
  for (size_t idx = 0; idx < blocks_.size(); ++idx) {
    const auto id = static_cast<BlockId>(idx);
    if (block_copies_.restoring(id) && pool_.reference_count(id) == 0) {
      return InternalF("block {} waits for its restore, and nobody holds it", id);
    }
  }
  for (int64_t idx = 0; idx < tail_pool().num_blocks(); ++idx) {
    const auto id = static_cast<BlockId>(idx);
    if (tail_copies_.restoring(id) && tail_pool().reference_count(id) == 0) {
      return InternalF("tail block {} waits for its restore, and nobody holds it", id);
    }
  }
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
