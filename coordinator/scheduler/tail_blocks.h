// TailBlocks: the tail blocks of one data-parallel rank: pages of rows that only the next
// `tail_tokens` positions see (V4's window rows and the compressors' raw rows). A
// sequence gives a tail block back when its tokens have left it behind. If the KV block
// of the same tokens is in the prefix index, the tail block stays with it as cached
// content, in an LRU of its own: a prefix hit that ends behind it needs it again.
//
// Part of BlockManager, which says what is in the index; knows no tokens and no
// sequences.
#ifndef TESSERA_COORDINATOR_SCHEDULER_TAIL_BLOCKS_H_
#define TESSERA_COORDINATOR_SCHEDULER_TAIL_BLOCKS_H_

#include <cstdint>
#include <span>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"

#include "coordinator/scheduler/block_pool.h"

namespace tessera::coordinator {

// External synchronisation.
class TailBlocks {
 public:
  // For an index over `num_kv_blocks`. Without tail blocks every method is a no-op.
  // `floors`: as BlockPool's.
  TailBlocks(int64_t num_blocks, int64_t num_kv_blocks,
             std::span<const int64_t> floors = {});

  const BlockPool& pool() const { return pool_; }

  // The tail block that is kept with the indexed `kv_block`; kNoBlock if there is none.
  BlockId Of(BlockId kv_block) const {
    return pool_.num_blocks() == 0 ? kNoBlock : tail_of_[kv_block];
  }

  // Keeps `tail`, which is used and full, with the indexed `kv_block`, as content of
  // `group`. If that has one already, `tail` becomes free when it is released.
  void Attach(BlockId kv_block, BlockId tail, uint32_t group = 0);

  // The KV block left the index: its tail block cannot be found any more.
  void Detach(BlockId kv_block);
  // `tail` cannot be found any more, if it ever could.
  void Forget(BlockId tail) {
    if (owner_[tail] != kNoBlock) {
      Detach(owner_[tail]);
    }
  }

  // As BlockPool's; `evicted` is told which KV block a tail block was kept with, too.
  bool Allocate(
      int64_t count, std::vector<BlockId>* blocks,
      absl::FunctionRef<void(BlockId kv_block, BlockId tail)> evicted = [](BlockId,
                                                                           BlockId) {},
      uint32_t group = 0);
  void Reference(BlockId block) { pool_.Reference(block); }
  void Release(std::span<const BlockId> blocks) { pool_.Release(blocks); }
  void Reset();

  // Recounts everything; kInternal names the first difference. For tests: linear.
  absl::Status CheckInvariants() const;

 private:
  BlockPool pool_;
  std::vector<BlockId> tail_of_;  // [num_kv_blocks]
  std::vector<BlockId> owner_;    // [num_blocks]: the KV block that a tail is kept with
};

}  // namespace tessera::coordinator

#endif  // TESSERA_COORDINATOR_SCHEDULER_TAIL_BLOCKS_H_
