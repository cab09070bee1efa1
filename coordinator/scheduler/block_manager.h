// BlockManager: the KV blocks of one data-parallel rank and the prefix index over those
// that hold content worth reusing, and the tail blocks that go with them (tail_blocks.h).
// It owns no memory and knows nothing of plans: the scheduler releases blocks only when
// no plan in flight names them. The content of a pool (block_pool.h) is here what is
// registered in the index.
//
// What is shared: full blocks under a chain of keys (prefix_hash.h). A key is only a way
// to find a block; a match also compares the tokens, the identity of the block before it
// (its serial, which no later content of the same block has) and, for the first, the
// tenant. A collision costs a hit and never returns another prefix's content.
//
// The token after a prefix of n blocks sees rows of the last `tail_tokens` tokens: a
// match is shortened to the longest prefix whose last ceil(tail_tokens / block_size)
// blocks, or all if it has fewer, have their tail blocks.
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

#include "coordinator/scheduler/block_pool.h"
#include "coordinator/scheduler/prefix_hash.h"
#include "coordinator/scheduler/tail_blocks.h"

namespace tessera::coordinator {

struct BlockManagerOptions {
  int64_t num_blocks = 0;
  int64_t block_size = 16;
  bool enable_prefix_caching = true;
  int64_t num_tail_blocks = 0;  // 0: the model keeps none
  int64_t tail_tokens = 0;
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
  int64_t num_unreferenced = 0;      // of `blocks`: taking them uses up free blocks
  std::vector<BlockId> tail_blocks;  // of the last of `blocks`
  int64_t num_unreferenced_tails = 0;
  int64_t num_shortened = 0;  // registered blocks left out for want of tail blocks
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
  // kInvalidArgument: no blocks, a block size below one, more than 2^31 tokens, or too
  // few tail blocks for one sequence.
  static absl::StatusOr<std::unique_ptr<BlockManager>> Create(
      const BlockManagerOptions& options);

  // Blocks that Allocate could give, cached ones included.
  int64_t num_free() const { return pool_.num_free(); }
  int64_t num_cached() const { return pool_.num_cached(); }
  int64_t num_used() const { return pool_.num_used(); }
  int64_t num_blocks() const { return pool_.num_blocks(); }
  uint64_t num_evictions() const { return pool_.num_evictions(); }
  // The counts of the tail blocks.
  const BlockPool& tail_pool() const { return tails_.pool(); }
  bool has_tails() const { return tail_pool().num_blocks() > 0; }

  // Counts calls of Release and ReleaseTails. What a failed admission needs can only have
  // changed if this has.
  uint64_t release_count() const {
    return pool_.release_count() + tail_pool().release_count();
  }

  // Tail blocks that a prefix of `num_blocks` blocks needs at its end.
  int64_t num_tails_of_prefix(int64_t num_blocks) const;

  // Tail blocks with which a sequence that runs alone always advances:
  // ceil(tail_tokens / block_size) + 1.
  static int64_t MinTailBlocks(int64_t tail_tokens, int64_t block_size);

  // The longest registered prefix. Changes nothing; valid until the next change.
  PrefixMatch Match(const PrefixQuery& query) const;

  // Takes a reference to each block and tail block of a match and returns the cursor that
  // continues after it.
  PrefixCursor Acquire(const PrefixMatch& match);

  // Appends `count` blocks with one reference each; evicts cached ones where needed.
  // False, and nothing changed, if fewer are free.
  bool Allocate(int64_t count, std::vector<BlockId>* blocks);
  bool AllocateTails(int64_t count, std::vector<BlockId>* blocks);

  // Drops one reference to each. Registered blocks become cached, the last of `blocks` to
  // be evicted first, others free. Tail blocks likewise if one is kept with a registered
  // block.
  void Release(std::span<const BlockId> blocks);
  void ReleaseTails(std::span<const BlockId> blocks);

  // Registers the block after `cursor`, which the caller holds, as filled with the tokens
  // that `query` gives for it, and advances. If the index has that content already it
  // stays where it is; other content under the same key is dropped from the index.
  void Register(const PrefixQuery& query, BlockId block, PrefixCursor* cursor);

  // Keeps the full tail block `tail`, which the caller holds, with the content that
  // Register last advanced `cursor` over, unless that has one or left the index.
  void KeepTail(const PrefixCursor& cursor, BlockId tail);

  // Forgets all references and content.
  void Reset();

  int32_t reference_count(BlockId block) const { return pool_.reference_count(block); }

  // Recounts everything; kInternal names the first difference. For tests: linear in the
  // blocks.
  absl::Status CheckInvariants() const;

 private:
  struct Block {
    uint64_t serial = 0;  // of its registration; 0: not in the index
    PrefixKey key;
    uint64_t parent_serial = 0;  // 0: first of a chain
    std::string tenant;          // of the first of a chain
  };

  explicit BlockManager(const BlockManagerOptions& options);

  std::span<int32_t> TokensOf(BlockId block);
  std::span<const int32_t> TokensOf(BlockId block) const;
  // Whether `block` holds block `idx` of `query` after `parent_serial`.
  bool Holds(BlockId block, const PrefixQuery& query, int64_t idx,
             uint64_t parent_serial) const;
  // Shortens `match` as the file comment says and fills in the rest of it.
  void MatchTails(PrefixMatch* match) const;
  void Unregister(BlockId block);

  const BlockManagerOptions options_;
  BlockPool pool_;
  TailBlocks tails_;
  std::vector<Block> blocks_;
  std::vector<int32_t> tokens_;  // [num_blocks, block_size]: of registered blocks
  absl::flat_hash_map<PrefixKey, BlockId> index_;
  uint64_t next_serial_ = 1;
};

}  // namespace tessera::coordinator

#endif  // TESSERA_COORDINATOR_SCHEDULER_BLOCK_MANAGER_H_
