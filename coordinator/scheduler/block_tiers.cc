// The tiers behind BlockManager's index: what goes to the host and comes back.
#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include "common/check.h"
#include "coordinator/scheduler/block_manager.h"

namespace tessera::coordinator {

void BlockManager::Restore(BlockId host, uint32_t group, BlockId* block) {
  std::vector<BlockId> given;
  TESSERA_CHECK(pool_.Allocate(
      1, &given, [this](BlockId id) { Evict(id); }, group));
  *block = given.front();
  Install(*block, host_.content(host), host_.tokens(host), group);
  block_copies_.Restore(*block, host);
}

void BlockManager::RestoreTail(BlockId host, BlockId kv_block, uint32_t group,
                               BlockId* tail) {
  std::vector<BlockId> given;
  const auto evicted = [this](BlockId owner, BlockId id) { EvictTail(owner, id); };
  TESSERA_CHECK(tails_.Allocate(1, &given, evicted, group));
  *tail = given.front();
  tails_.Attach(kv_block, *tail, group);
  tail_copies_.Restore(*tail, host);
}

void BlockManager::Evict(BlockId id) {
  const BlockContent& content = blocks_[id];
  const BlockId host = host_.Keep(content, TokensOf(id), pool_.group(id),
                                  [this](BlockId victim) { Spill(victim); });
  if (host != kNoBlock) {
    block_copies_.Offload(id, host);
  }
  if (tails_.Of(id) != kNoBlock) {
    // It cannot be found without the block.
    EvictTail(id, tails_.Of(id));
  }
  Unregister(id);
}

void BlockManager::EvictTail(BlockId kv_block, BlockId tail) {
  if (tail_copies_.restoring(tail)) {
    return;  // It is still on the host.
  }
  const BlockId host = host_.KeepTail(blocks_[kv_block].serial, tail_pool().group(tail),
                                      [this](BlockId victim) { SpillTail(victim); });
  if (host != kNoBlock) {
    tail_copies_.Offload(tail, host);
  }
}

void BlockManager::BeginPlan() { host_.BeginPlan(); }

void BlockManager::BeforeWrite(std::span<const BlockId> blocks) {
  for (const BlockId id : blocks) {
    block_copies_.NameOffload(id);
  }
}

void BlockManager::BeforeTailWrite(std::span<const BlockId> tails) {
  for (const BlockId id : tails) {
    tail_copies_.NameOffload(id);
  }
}

int64_t BlockManager::NameRestores(std::span<const BlockId> blocks, int64_t* limit) {
  for (size_t i = 0; i < blocks.size(); ++i) {
    if (block_copies_.restoring(blocks[i])) {
      if (--*limit < 0) {
        *limit = 0;
        return static_cast<int64_t>(i);
      }
      host_.Unpin(block_copies_.NameRestore(blocks[i]));
    }
  }
  return std::ssize(blocks);
}

int64_t BlockManager::NameTailRestores(std::span<const BlockId> tails, int64_t* limit) {
  for (size_t i = 0; i < tails.size(); ++i) {
    if (tail_copies_.restoring(tails[i])) {
      if (--*limit < 0) {
        *limit = 0;
        return static_cast<int64_t>(i);
      }
      host_.UnpinTail(tail_copies_.NameRestore(tails[i]));
    }
  }
  return std::ssize(tails);
}

BlockId BlockManager::Receive(const PrefixQuery& query, PrefixCursor* cursor) {
  const int64_t idx = cursor->num_blocks;
  if (cursor->broken || (idx > 0 && !Lives(query, *cursor))) {
    cursor->broken = true;
    return kNoBlock;
  }
  const uint64_t parent_serial = idx == 0 ? 0 : cursor->last_serial;
  const BlockId device = FindOnDevice(query, idx, parent_serial);
  BlockId host = device == kNoBlock ? FindOnHost(query, idx, parent_serial) : kNoBlock;
  if (device != kNoBlock || host != kNoBlock) {
    cursor->last_serial =
        device != kNoBlock ? blocks_[device].serial : host_.content(host).serial;
    ++cursor->num_blocks;
    return kNoBlock;
  }
  const auto width = static_cast<size_t>(options_.block_size);
  host = host_.Keep({.serial = next_serial_,
                     .key = query.keys[static_cast<size_t>(idx)],
                     .parent_serial = parent_serial,
                     .tenant = idx == 0 ? std::string(query.tenant) : std::string()},
                    query.tokens.subspan(static_cast<size_t>(idx) * width, width),
                    GroupOf(query.tenant), [this](BlockId victim) { Spill(victim); });
  if (host == kNoBlock) {
    cursor->broken = true;
    return kNoBlock;
  }
  host_.Pin(host);
  block_copies_.GiveUpOffloadTo(host);
  cursor->last_serial = next_serial_++;
  ++cursor->num_blocks;
  return host;
}

std::optional<BlockId> BlockManager::ReceiveTail(std::string_view tenant,
                                                 const PrefixKey& key, uint64_t serial) {
  const auto found = index_.find(key);
  const bool on_device = found != index_.end() &&
                         blocks_[found->second].serial == serial &&
                         tails_.Of(found->second) != kNoBlock;
  if (on_device || host_.FindTail(serial) != kNoBlock) {
    return kNoBlock;
  }
  const BlockId host = host_.KeepTail(serial, GroupOf(tenant),
                                      [this](BlockId victim) { SpillTail(victim); });
  if (host == kNoBlock) {
    return std::nullopt;
  }
  host_.PinTail(host);
  tail_copies_.GiveUpOffloadTo(host);
  return host;
}

void BlockManager::EndReceive(std::span<const BlockId> blocks,
                              std::span<const BlockId> tails) {
  for (const BlockId host : blocks) {
    host_.Unpin(host);
  }
  for (const BlockId host : tails) {
    host_.UnpinTail(host);
  }
}

void BlockManager::Spill(BlockId host) {
  if (block_copies_.readable(host)) {
    disk_.Spill(host_.content(host), host_.tokens(host), host_.blocks().group(host),
                host);
  }
}

void BlockManager::SpillTail(BlockId host) {
  if (tail_copies_.readable(host)) {
    disk_.SpillTail(host_.tail_serial(host), host_.tails().group(host), host);
  }
}

BlockId BlockManager::FindOnDisk(const PrefixQuery& query, int64_t idx,
                                 uint64_t parent_serial) const {
  const HostTier& contents = disk_.contents();
  const BlockId slot = contents.Find(query.keys[static_cast<size_t>(idx)]);
  return slot != kNoBlock && Is(contents.content(slot), contents.tokens(slot), query, idx,
                                parent_serial)
             ? slot
             : kNoBlock;
}

DiskPrefix BlockManager::MatchDisk(const PrefixQuery& query) const {
  DiskPrefix prefix;
  const int64_t limit =
      disk_.enabled() ? std::min<int64_t>(query.max_blocks, std::ssize(query.keys)) : 0;
  const int64_t max_fetched = host_.blocks().num_blocks() / 2;
  std::vector<DiskPrefix::Item> found;  // of every block; slot kNoBlock: elsewhere
  int64_t present = 0;                  // tail blocks in a row, in any tier
  int64_t num_fetched = 0;
  uint64_t serial = 0;
  for (int64_t idx = 0; idx < limit; ++idx) {
    const BlockId device = FindOnDevice(query, idx, serial);
    const BlockId host = device == kNoBlock ? FindOnHost(query, idx, serial) : kNoBlock;
    BlockId slot = kNoBlock;
    if (device != kNoBlock) {
      serial = blocks_[device].serial;
    } else if (host != kNoBlock) {
      serial = host_.content(host).serial;
      prefix.host_blocks.push_back(host);
    } else {
      slot = FindOnDisk(query, idx, serial);
      if (slot == kNoBlock || ++num_fetched > max_fetched) {
        break;
      }
      serial = disk_.contents().content(slot).serial;
    }
    found.push_back({.slot = slot, .serial = serial});
    const bool has_tail = (device != kNoBlock && tails_.Of(device) != kNoBlock) ||
                          host_.FindTail(serial) != kNoBlock ||
                          disk_.contents().FindTail(serial) != kNoBlock;
    present = has_tail ? present + 1 : 0;
    if (present >= num_tails_of_prefix(idx + 1)) {
      prefix.num_blocks = idx + 1;
    }
  }
  for (int64_t idx = 0; idx < prefix.num_blocks; ++idx) {
    const DiskPrefix::Item& item = found[static_cast<size_t>(idx)];
    if (item.slot != kNoBlock) {
      prefix.items.push_back(item);
    }
  }
  int64_t num_tails = 0;
  for (int64_t idx = prefix.num_blocks - num_tails_of_prefix(prefix.num_blocks);
       idx < prefix.num_blocks; ++idx) {
    DiskPrefix::Item item = found[static_cast<size_t>(idx)];
    item.slot = disk_.contents().FindTail(item.serial);
    item.tail = true;
    const BlockId device = FindOnDevice(
        query, idx, idx == 0 ? 0 : found[static_cast<size_t>(idx - 1)].serial);
    const bool on_device = device != kNoBlock && tails_.Of(device) != kNoBlock;
    if (!on_device && host_.FindTail(item.serial) == kNoBlock) {
      prefix.items.push_back(item);
      ++num_tails;
    }
  }
  return num_tails > host_.tails().num_blocks() / 2 ? DiskPrefix() : prefix;
}

bool BlockManager::IsHere(const DiskPrefix::Item& item) const {
  if (item.tail) {
    return host_.FindTail(item.serial) != kNoBlock;
  }
  const PrefixKey& key = disk_.contents().content(item.slot).key;
  const auto found = index_.find(key);
  const BlockId host = host_.Find(key);
  return (found != index_.end() && blocks_[found->second].serial == item.serial) ||
         (host != kNoBlock && host_.content(host).serial == item.serial);
}

bool BlockManager::Fetch(std::string_view tenant, DiskPrefix* prefix) {
  const HostTier& contents = disk_.contents();
  if (prefix->num_asked == 0) {
    // What is there already is not what makes room.
    for (auto host = prefix->host_blocks.rbegin(); host != prefix->host_blocks.rend();
         ++host) {
      host_.Touch(*host);
    }
    prefix->host_blocks.clear();
  }
  for (; prefix->num_asked < prefix->items.size(); ++prefix->num_asked) {
    const DiskPrefix::Item& item = prefix->items[prefix->num_asked];
    const auto is_there = [&] {
      return item.serial == (item.tail ? contents.tail_serial(item.slot)
                                       : contents.content(item.slot).serial);
    };
    if (!is_there() || IsHere(item)) {
      continue;  // It is gone, or has come for another sequence.
    }
    if (disk_.fetching(item.slot, item.tail)) {
      prefix->last_copy = disk_.num_named();
      continue;
    }
    if (!disk_.has_room()) {
      return true;
    }
    const BlockId host =
        item.tail ? host_.Reserve(true, GroupOf(tenant),
                                  [this](BlockId victim) { SpillTail(victim); })
                  : host_.Reserve(false, GroupOf(tenant),
                                  [this](BlockId victim) { Spill(victim); });
    if (host == kNoBlock) {
      prefix->num_asked = prefix->items.size();
      break;
    }
    // What was to go there has lost its place.
    (item.tail ? tail_copies_ : block_copies_).GiveUpOffloadTo(host);
    if (!disk_.has_room() || !is_there()) {
      host_.Release(host, item.tail);  // What was there took the last place, or this one.
      return true;
    }
    disk_.Fetch(item.slot, item.tail, host);
    prefix->last_copy = disk_.num_named();
  }
  return prefix->last_copy > disk_.num_done();
}

uint64_t BlockManager::TakeDiskReport(uint64_t num_done,
                                      std::span<const uint64_t> failed) {
  const HostTier& contents = disk_.contents();
  return disk_.TakeReport(num_done, failed, [&](const SlotCopy& copy, bool came) {
    if (!came) {
      host_.Release(copy.host, copy.tail);
    } else if (copy.tail) {
      host_.FillTail(copy.host, copy.serial, contents.tails().group(copy.slot));
    } else {
      host_.Fill(copy.host, contents.content(copy.slot), contents.tokens(copy.slot),
                 contents.blocks().group(copy.slot));
    }
  });
}

}  // namespace tessera::coordinator
