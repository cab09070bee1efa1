// BlockManager: the KV blocks of one data-parallel rank: which are free, how many
// sequences refer to each, and which free ones still hold content worth reusing (the
// prefix index). It owns no memory and knows nothing of plans: the scheduler calls
// Release only when no plan in flight names the blocks.
//
// States of a block: free (no content) -> used (references > 0) -> free, or cached if it
// was registered (free, with content; evicted in least-recently-used order when blocks
// run out). A used block may be registered as well. free + cached + used = num_blocks at
// all times.
//
// What is shared: full blocks under a chain of keys (prefix_hash.h). A key is only a way
// to find a block; a match also compares the tokens, the identity of the block before it
// (its serial, which no later content of the same block has) and, for the first, the
// tenant. A collision costs a hit and never returns another prefix's content.
#ifndef TESSERA_COORDINATOR_SCHEDULER_BLOCK_MANAGER_H_
#define TESSERA_COORDINATOR_SCHEDULER_BLOCK_MANAGER_H_

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"

#include "coordinator/scheduler/prefix_hash.h"

namespace tessera::coordinator {

using BlockId = uint32_t;

struct BlockManagerOptions {
  int64_t num_blocks = 0;
  int64_t block_size = 16;
  bool enable_prefix_caching = true;
};

// A sequence's content as the index sees it. Views; valid during the call.
struct PrefixQuery {
  std::string_view tenant;
  std::span<const int32_t> tokens;
  std::span<const PrefixKey> keys;  // of the full blocks of `tokens`
  int64_t max_blocks = 0;           // match no more than these
};

struct PrefixMatch {
  std::vector<BlockId> blocks;
  int64_t num_unreferenced = 0;  // of `blocks`: taking them uses up free blocks
};

// How far the blocks of one sequence are registered. A value that the sequence keeps.
struct PrefixCursor {
  int64_t num_blocks = 0;  // registered, or found to be in the index already
  BlockId last_block = 0;  // that the index holds for the last of them
  uint64_t last_serial = 0;
  bool broken = false;  // the chain before it left the index: nothing later can be found
};

// External synchronisation.
class BlockManager {
 public:
  // kInvalidArgument: no blocks, a block size below one, or more than 2^31 tokens.
  static absl::StatusOr<std::unique_ptr<BlockManager>> Create(
      const BlockManagerOptions& options);

  // Blocks that Allocate could give, cached ones included.
  int64_t num_free() const { return static_cast<int64_t>(free_.size()) + num_cached_; }
  int64_t num_cached() const { return num_cached_; }
  int64_t num_used() const { return options_.num_blocks - num_free(); }
  int64_t num_blocks() const { return options_.num_blocks; }
  uint64_t num_evictions() const { return num_evictions_; }

  // Counts calls of Release. What a failed admission needs can only have changed if this
  // has.
  uint64_t release_count() const { return release_count_; }

  // The longest registered prefix. Changes nothing; valid until the next change.
  PrefixMatch Match(const PrefixQuery& query) const;

  // Takes a reference to each block of a match and returns the cursor that continues
  // after it.
  PrefixCursor Acquire(const PrefixMatch& match);

  // Appends `count` blocks with one reference each; evicts cached ones where needed.
  // False, and nothing changed, if fewer are free.
  bool Allocate(int64_t count, std::vector<BlockId>* blocks);

  // Drops one reference to each. Registered blocks become cached, the last of `blocks` to
  // be evicted first, others free.
  void Release(std::span<const BlockId> blocks);

  // Registers the block after `cursor`, which the caller holds, as filled with the tokens
  // that `query` gives for it, and advances. If the index has that content already it
  // stays where it is; other content under the same key is dropped from the index.
  void Register(const PrefixQuery& query, BlockId block, PrefixCursor* cursor);

  // Forgets all references and content.
  void Reset();

  int32_t reference_count(BlockId block) const {
    return blocks_.at(block).reference_count;
  }

  // Recounts everything; kInternal names the first difference. For tests: linear in the
  // blocks.
  absl::Status CheckInvariants() const;

 private:
  static constexpr BlockId kNone = UINT32_MAX;

  struct Block {
    int32_t reference_count = 0;
    uint64_t serial = 0;  // of its registration; 0: not in the index
    PrefixKey key;
    uint64_t parent_serial = 0;  // 0: first of a chain
    std::string tenant;          // of the first of a chain
    BlockId newer = kNone;       // links of the list of cached blocks
    BlockId older = kNone;
  };

  explicit BlockManager(const BlockManagerOptions& options);

  std::span<int32_t> TokensOf(BlockId block);
  std::span<const int32_t> TokensOf(BlockId block) const;
  // Whether `block` holds block `idx` of `query` after `parent_serial`.
  bool Holds(BlockId block, const PrefixQuery& query, int64_t idx,
             uint64_t parent_serial) const;
  void Unregister(BlockId block);
  void LinkNewest(BlockId block);
  void Unlink(BlockId block);

  const BlockManagerOptions options_;
  std::vector<Block> blocks_;
  std::vector<int32_t> tokens_;  // [num_blocks, block_size]: of registered blocks
  std::vector<BlockId> free_;    // a stack
  absl::flat_hash_map<PrefixKey, BlockId> index_;
  BlockId newest_ = kNone;
  BlockId oldest_ = kNone;
  int64_t num_cached_ = 0;
  uint64_t next_serial_ = 1;
  uint64_t num_evictions_ = 0;
  uint64_t release_count_ = 0;
};

}  // namespace tessera::coordinator

#endif  // TESSERA_COORDINATOR_SCHEDULER_BLOCK_MANAGER_H_
