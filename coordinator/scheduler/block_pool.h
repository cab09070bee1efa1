// BlockPool: which blocks of one pool are free, how many sequences refer to each of the
// others, and which unreferenced ones still hold content worth keeping. Only counts and
// lists: what content is and who finds it again is the owner's (BlockManager,
// TailBlocks).
//
// States of a block: free (no content) -> used (references > 0) -> free, or cached if it
// has content (unreferenced; evicted in least-recently-used order when blocks run out). A
// used block may have content as well. free + cached + used = num_blocks at all times.
//
// Floors: content belongs to a group. Of a group with a floor, so many cached blocks are
// evicted for no other group; those of group 0, which has none, for everybody.
#ifndef TESSERA_COORDINATOR_SCHEDULER_BLOCK_POOL_H_
#define TESSERA_COORDINATOR_SCHEDULER_BLOCK_POOL_H_

#include <cstdint>
#include <span>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"

namespace tessera::coordinator {

using BlockId = uint32_t;

inline constexpr BlockId kNoBlock = UINT32_MAX;

// External synchronisation.
class BlockPool {
 public:
  // At most 2^31 blocks; none at all is a pool, too. `floors` are those of groups 1..
  explicit BlockPool(int64_t num_blocks, std::span<const int64_t> floors = {});

  int64_t num_blocks() const { return static_cast<int64_t>(blocks_.size()); }
  // Blocks that no sequence refers to, cached ones included.
  int64_t num_free() const { return static_cast<int64_t>(free_.size()) + num_cached_; }
  // Of them, those that Allocate could give to `group`.
  int64_t num_free_for(uint32_t group) const;
  int64_t num_cached() const { return num_cached_; }
  int64_t num_used() const { return num_blocks() - num_free(); }
  uint64_t num_evictions() const { return num_evictions_; }
  // Calls of Release and Reset.
  uint64_t release_count() const { return release_count_; }
  int32_t reference_count(BlockId block) const {
    return blocks_.at(block).reference_count;
  }
  bool has_content(BlockId block) const { return blocks_.at(block).has_content; }
  uint32_t group(BlockId block) const { return blocks_.at(block).group; }

  // Appends `count` blocks with one reference each and without content. Cached ones are
  // evicted where needed: each has lost its content when `evicted` is called for it.
  // False, and nothing changed, if fewer are free for `group`.
  bool Allocate(int64_t count, std::vector<BlockId>* blocks,
                absl::FunctionRef<void(BlockId)> evicted, uint32_t group = 0);

  // Adds a reference to a block that is used or cached.
  void Reference(BlockId block);

  // Drops one reference to each. Those with content become cached, the last of `blocks`
  // to be evicted first, others free.
  void Release(std::span<const BlockId> blocks);

  // Says that a used block has content from now on, of `group`.
  void SetContent(BlockId block, uint32_t group = 0);
  // The block has content no more; a cached one becomes free.
  void ClearContent(BlockId block);

  // Forgets all references and content.
  void Reset();

  // Recounts everything; kInternal names the first difference. For tests: linear.
  absl::Status CheckInvariants() const;

 private:
  struct Block {
    int32_t reference_count = 0;
    bool has_content = false;
    uint32_t group = 0;        // of the content
    uint64_t age = 0;          // rises with each entry into a list
    BlockId newer = kNoBlock;  // links of the group's list of cached blocks
    BlockId older = kNoBlock;
  };
  struct Group {
    int64_t floor = 0;
    int64_t num_cached = 0;
    BlockId newest = kNoBlock;
    BlockId oldest = kNoBlock;
  };

  // The least recently used of the cached blocks that `group` may evict.
  BlockId Victim(uint32_t group) const;
  absl::Status CheckList(const Group& group, std::vector<int>* places) const;

  void LinkNewest(BlockId block);
  void Unlink(BlockId block);

  std::vector<Block> blocks_;
  std::vector<BlockId> free_;  // a stack
  std::vector<Group> groups_;
  int64_t num_cached_ = 0;
  uint64_t next_age_ = 0;
  uint64_t num_evictions_ = 0;
  uint64_t release_count_ = 0;
};

}  // namespace tessera::coordinator

#endif  // TESSERA_COORDINATOR_SCHEDULER_BLOCK_POOL_H_
