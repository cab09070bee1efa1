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
                       uint32_t group) {
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
  given_.clear();
  const auto evicted = [this](BlockId victim) {
    index_.erase(contents_[victim].key);
    contents_[victim] = BlockContent();
  };
  const bool given = blocks_.Allocate(1, &given_, evicted, group);
  if (!given) {
    return kNoBlock;
  }
  const BlockId block = given_.front();
  contents_[block] = content;
  std::copy(tokens.begin(), tokens.end(),
            tokens_.begin() + static_cast<std::ptrdiff_t>(block * block_size_));
  index_[content.key] = block;
  blocks_.SetContent(block, group);
  blocks_.Release(given_);
  return block;
}

BlockId HostTier::KeepTail(uint64_t serial, uint32_t group) {
  const BlockId held = FindTail(serial);
  if (held != kNoBlock) {
    tails_.Reference(held);
    tails_.Release({&held, 1});
    return kNoBlock;
  }
  given_.clear();
  const auto evicted = [this](BlockId victim) {
    tail_index_.erase(tail_serials_[victim]);
  };
  const bool given = tails_.Allocate(1, &given_, evicted, group);
  if (!given) {
    return kNoBlock;
  }
  const BlockId tail = given_.front();
  tail_serials_[tail] = serial;
  tail_index_[serial] = tail;
  tails_.SetContent(tail, group);
  tails_.Release(given_);
  return tail;
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
  const int64_t num_tails = tails_.num_cached() + tails_.num_used();
  if (num_tails != static_cast<int64_t>(tail_index_.size())) {
    return InternalF("{} host tail blocks with content, {} in the index", num_tails,
                     tail_index_.size());
  }
  return absl::OkStatus();
}

}  // namespace tessera::coordinator
