#include "coordinator/scheduler/host_tier.h"

#include <algorithm>

#include "common/check.h"
#include "common/status.h"
#include "common/status_macros.h"

namespace tessera::coordinator {

HostTier::HostTier(int64_t num_blocks, int64_t num_tail_blocks, int64_t block_size,
                   std::span<const int64_t> floors, std::span<const int64_t> tail_floors)
    : block_size_(static_cast<size_t>(block_size)),
      blocks_(num_blocks, floors),
      tails_(num_tail_blocks, tail_floors),
      contents_(static_cast<size_t>(num_blocks)),
      tokens_(static_cast<size_t>(num_blocks * block_size)),
      from_disk_(static_cast<size_t>(num_blocks), false),
      tail_serials_(static_cast<size_t>(num_tail_blocks), 0) {
  index_.reserve(contents_.size());
  tail_index_.reserve(tail_serials_.size());
}

void HostTier::Reset() {
  blocks_.Reset();
  tails_.Reset();
  contents_.assign(contents_.size(), BlockContent());
  tail_serials_.assign(tail_serials_.size(), 0);
  index_.clear();
  tail_index_.clear();
  unpinned_.clear();
  unpinned_tails_.clear();
}

BlockId HostTier::Find(const PrefixKey& key) const {
  const auto found = index_.find(key);
  return found == index_.end() ? kNoBlock : found->second;
}

BlockId HostTier::FindTail(uint64_t serial) const {
  const auto found = tail_index_.find(serial);
  return found == tail_index_.end() ? kNoBlock : found->second;
}

std::span<const int32_t> HostTier::tokens(BlockId block) const {
  return std::span(tokens_).subspan(block * block_size_, block_size_);
}

BlockId HostTier::Keep(const BlockContent& content, std::span<const int32_t> tokens,
                       uint32_t group, Evicting evicting) {
  const BlockId held = Find(content.key);
  if (held != kNoBlock) {
    if (contents_[held].serial == content.serial) {
      // Newest again, unless this plan holds it as such.
      blocks_.Reference(held);
      blocks_.Release({&held, 1});
      return kNoBlock;
    }
    if (blocks_.reference_count(held) > 0) {
      return kNoBlock;
    }
    // What is left of a chain whose start is gone.
    Drop(held);
  }
  const BlockId block = Reserve(/*tail=*/false, group, evicting);
  if (block != kNoBlock) {
    Install(block, content, tokens, group);
    blocks_.Release({&block, 1});
  }
  return block;
}

BlockId HostTier::KeepTail(uint64_t serial, uint32_t group, Evicting evicting) {
  const BlockId held = FindTail(serial);
  if (held != kNoBlock) {
    tails_.Reference(held);
    tails_.Release({&held, 1});
    return kNoBlock;
  }
  const BlockId tail = Reserve(/*tail=*/true, group, evicting);
  if (tail != kNoBlock) {
    InstallTail(tail, serial, group);
    tails_.Release({&tail, 1});
  }
  return tail;
}

BlockId HostTier::Reserve(bool tail, uint32_t group, Evicting evicting) {
  given_.clear();
  const auto evicted = [&](BlockId victim) {
    evicting(victim);
    if (tail) {
      tail_index_.erase(std::exchange(tail_serials_[victim], 0));
    } else {
      index_.erase(contents_[victim].key);
      contents_[victim] = BlockContent();
    }
  };
  return (tail ? tails_ : blocks_).Allocate(1, &given_, evicted, group) ? given_.front()
                                                                        : kNoBlock;
}

void HostTier::Install(BlockId block, const BlockContent& content,
                       std::span<const int32_t> tokens, uint32_t group) {
  contents_[block] = content;
  std::copy(tokens.begin(), tokens.end(),
            tokens_.begin() + static_cast<std::ptrdiff_t>(block * block_size_));
  from_disk_[block] = false;
  index_[content.key] = block;
  blocks_.SetContent(block, group);
}

void HostTier::InstallTail(BlockId tail, uint64_t serial, uint32_t group) {
  tail_serials_[tail] = serial;
  tail_index_[serial] = tail;
  tails_.SetContent(tail, group);
}

void HostTier::Fill(BlockId block, const BlockContent& content,
                    std::span<const int32_t> tokens, uint32_t group) {
  if (Find(content.key) == kNoBlock) {
    Install(block, content, tokens, group);
    from_disk_[block] = true;
  }
  Release(block, /*tail=*/false);
}

bool HostTier::TakeCameFromDisk(BlockId block) {
  const bool came = from_disk_[block];
  from_disk_[block] = false;
  return came;
}

void HostTier::FillTail(BlockId tail, uint64_t serial, uint32_t group) {
  if (FindTail(serial) == kNoBlock) {
    InstallTail(tail, serial, group);
  }
  Release(tail, /*tail=*/true);
}

void HostTier::BeginPlan() {
  blocks_.Release(unpinned_);
  tails_.Release(unpinned_tails_);
  unpinned_.clear();
  unpinned_tails_.clear();
}

void HostTier::Drop(BlockId block) {
  TESSERA_CHECK_EQ(blocks_.reference_count(block), 0);
  index_.erase(contents_[block].key);
  contents_[block] = BlockContent();
  blocks_.ClearContent(block);
}

void HostTier::DropTail(BlockId tail) {
  TESSERA_CHECK_EQ(tails_.reference_count(tail), 0);
  tail_index_.erase(std::exchange(tail_serials_[tail], 0));
  tails_.ClearContent(tail);
}

absl::Status HostTier::CheckInvariants() const {
  TESSERA_RETURN_IF_ERROR(blocks_.CheckInvariants());
  TESSERA_RETURN_IF_ERROR(tails_.CheckInvariants());
  int64_t held = 0;
  for (size_t idx = 0; idx < contents_.size(); ++idx) {
    const auto id = static_cast<BlockId>(idx);
    const bool has_content = contents_[idx].serial != 0;
    held += has_content ? 1 : 0;
    if (has_content != blocks_.has_content(id) ||
        (has_content && Find(contents_[idx].key) != id)) {
      return InternalF("host block {} has content: {}, and the index disagrees", id,
                       has_content);
    }
  }
  if (held != static_cast<int64_t>(index_.size())) {
    return InternalF("{} host blocks with content, {} in the index", held, index_.size());
  }
  for (const auto& [serial, tail] : tail_index_) {
    if (tail_serials_[tail] != serial || !tails_.has_content(tail)) {
      return InternalF("the index names host tail block {} for content {}", tail, serial);
    }
  }
  const auto num_tails = std::count_if(tail_serials_.begin(), tail_serials_.end(),
                                       [](uint64_t serial) { return serial != 0; });
  if (num_tails != static_cast<int64_t>(tail_index_.size())) {
    return InternalF("{} host tail blocks with content, {} in the index", num_tails,
                     tail_index_.size());
  }
  return absl::OkStatus();
}

}  // namespace tessera::coordinator
