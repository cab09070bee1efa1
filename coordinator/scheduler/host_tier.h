// HostTier: the contents that have copies in host memory, of one data-parallel rank: a
// second place where BlockManager finds a prefix. Blocks and tail blocks that leave the
// device index are kept here in LRU orders of their own; a content keeps its serial, so
// that a chain may lie in either place, block by block. A content may be in both.
//
// It names host blocks and owns no memory: the copies are the workers', who make them in
// the order of the plans. Inside a plan all offloads come before all restores; what a
// plan restores must therefore not be overwritten by it, nor before it: Pin. A content
// may also come from elsewhere, later than a plan: its block is reserved until then.
#ifndef TESSERA_COORDINATOR_SCHEDULER_HOST_TIER_H_
#define TESSERA_COORDINATOR_SCHEDULER_HOST_TIER_H_

#include <cstdint>
#include <iterator>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/functional/function_ref.h"
#include "absl/status/status.h"

#include "coordinator/scheduler/block_pool.h"
#include "coordinator/scheduler/prefix_hash.h"

namespace tessera::coordinator {

// What a full block holds, beside its tokens.
struct BlockContent {
  uint64_t serial = 0;  // of its registration, never used again; 0: nothing
  PrefixKey key;
  uint64_t parent_serial = 0;  // 0: first of a chain
  std::string tenant;          // of the first of a chain
};

// External synchronisation.
class HostTier {
 public:
  // At most 2^31 tokens; none at all is a tier, too. Contents belong to groups, whose
  // floors are as BlockPool's.
  HostTier(int64_t num_blocks, int64_t num_tail_blocks, int64_t block_size,
           std::span<const int64_t> floors = {},
           std::span<const int64_t> tail_floors = {});

  // num_cached() of them hold content.
  const BlockPool& blocks() const { return blocks_; }
  const BlockPool& tails() const { return tails_; }

  // The host block with the content under `key`, or the tail block of the content
  // `serial`; kNoBlock if there is none.
  BlockId Find(const PrefixKey& key) const;
  BlockId FindTail(uint64_t serial) const;
  const BlockContent& content(BlockId block) const { return contents_[block]; }
  std::span<const int32_t> tokens(BlockId block) const;

  uint64_t tail_serial(BlockId tail) const { return tail_serials_[tail]; }

  // Is told of a block, or tail block, which is about to lose its content to another one.
  using Evicting = absl::FunctionRef<void(BlockId)>;

  // Keeps a content, or a content's tail block, as the newest, in the place of the least
  // recently used that its group may evict. Returns where its copy is to be written;
  // kNoBlock if a copy is there already, or if there is no place.
  BlockId Keep(
      const BlockContent& content, std::span<const int32_t> tokens, uint32_t group = 0,
      Evicting evicting = [](BlockId) {});
  BlockId KeepTail(
      uint64_t serial, uint32_t group = 0, Evicting evicting = [](BlockId) {});

  // A block without content, in the place of one that the group may evict; kNoBlock if
  // there is none. It stays until Fill, which gives it its content, as the newest, unless
  // that is here by then; or Release, which gives it back.
  BlockId Reserve(bool tail, uint32_t group, Evicting evicting);
  // Of a content that came from the disk, which TakeCameFromDisk says once.
  void Fill(BlockId block, const BlockContent& content, std::span<const int32_t> tokens,
            uint32_t group);
  void FillTail(BlockId tail, uint64_t serial, uint32_t group);
  bool TakeCameFromDisk(BlockId block);

  // A plan will read the block: it stays until the BeginPlan after Unpin, which says that
  // the plan under construction is that plan, or that there will be none. It is then the
  // newest.
  void Pin(BlockId block) { blocks_.Reference(block); }
  void PinTail(BlockId tail) { tails_.Reference(tail); }
  void Unpin(BlockId block) { unpinned_.push_back(block); }
  void UnpinTail(BlockId tail) { unpinned_tails_.push_back(tail); }
  void BeginPlan();
  // Pins that the next BeginPlan drops, of either kind.
  int64_t num_unpinned() const { return std::ssize(unpinned_); }
  int64_t num_unpinned_tails() const { return std::ssize(unpinned_tails_); }

  // Drops a pin at once, or a reservation: no plan will read the block.
  void Release(BlockId block, bool tail) {
    (tail ? tails_ : blocks_).Release({&block, 1});
  }
  // Makes a content the newest.
  void Touch(BlockId block) {
    blocks_.Reference(block);
    blocks_.Release({&block, 1});
  }

  // Forgets the content of a block, which is not pinned.
  void Drop(BlockId block);
  void DropTail(BlockId tail);

  void Reset();

  // Recounts everything; kInternal names the first difference. For tests: linear.
  absl::Status CheckInvariants() const;

 private:
  // Gives a reserved block its content.
  void Install(BlockId block, const BlockContent& content,
               std::span<const int32_t> tokens, uint32_t group);
  void InstallTail(BlockId tail, uint64_t serial, uint32_t group);

  const size_t block_size_;
  BlockPool blocks_;
  BlockPool tails_;
  std::vector<BlockContent> contents_;  // [num_blocks]
  std::vector<int32_t> tokens_;         // [num_blocks, block_size]
  std::vector<bool> from_disk_;         // [num_blocks]: not asked for since
  std::vector<uint64_t> tail_serials_;  // [num_tail_blocks]; 0: nothing
  absl::flat_hash_map<PrefixKey, BlockId> index_;
  absl::flat_hash_map<uint64_t, BlockId> tail_index_;  // by serial
  std::vector<BlockId> unpinned_;
  std::vector<BlockId> unpinned_tails_;
  std::vector<BlockId> given_;  // working space
};

}  // namespace tessera::coordinator

#endif  // TESSERA_COORDINATOR_SCHEDULER_HOST_TIER_H_
