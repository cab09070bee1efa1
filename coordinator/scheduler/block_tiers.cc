// The tiers behind BlockManager's index: what goes to the host and comes back.
#include <string>
#include <utility>

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
  const BlockId host = host_.Keep(content, TokensOf(id), pool_.group(id));
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
  const BlockId host = host_.KeepTail(blocks_[kv_block].serial, tail_pool().group(tail));
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
                    GroupOf(query.tenant));
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
  const BlockId host = host_.KeepTail(serial, GroupOf(tenant));
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

}  // namespace tessera::coordinator
