// What is asked of BlockManager, and what it answers: prefixes, where they lie, and the
// copies between those places.
#ifndef TESSERA_COORDINATOR_SCHEDULER_PREFIX_MATCH_H_
#define TESSERA_COORDINATOR_SCHEDULER_PREFIX_MATCH_H_

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

#include "coordinator/scheduler/block_pool.h"
#include "coordinator/scheduler/disk_tier.h"
#include "coordinator/scheduler/pending_copies.h"
#include "coordinator/scheduler/prefix_hash.h"

namespace tessera::coordinator {

// A sequence's content as the index sees it. Views; valid during the call.
struct PrefixQuery {
  std::string_view tenant;
  std::span<const int32_t> tokens;
  std::span<const PrefixKey> keys;  // of the full blocks of `tokens`
  int64_t max_blocks = 0;           // match no more than these
};

struct PrefixMatch {
  std::vector<BlockId> blocks;       // kNoBlock: in host memory only, until Acquire
  std::vector<BlockId> tail_blocks;  // likewise, of the last of `blocks`
  // Where those are, in their order.
  std::vector<BlockId> host_blocks;
  std::vector<BlockId> host_tail_blocks;
  int64_t num_shortened = 0;  // contents left out for want of tail blocks
  // Blocks and tail blocks that the tenant could get beside the match.
  int64_t num_spare = 0;
  int64_t num_spare_tails = 0;
  int64_t num_from_disk = 0;  // of `host_blocks`, since Acquire: fetched for the first
                              // who wanted them
};

// A prefix of which some is on the disk alone.
struct DiskPrefix {
  struct Item {
    BlockId slot = 0;
    uint64_t serial = 0;
    bool tail = false;
  };
  int64_t num_blocks = 0;            // of the prefix
  std::vector<Item> items;           // to be fetched, in this order
  std::vector<BlockId> host_blocks;  // what the host has of it
  size_t num_asked = 0;              // of them, that Fetch has dealt with
  uint64_t last_copy = 0;  // until so many copies are done, some of it is on its way
};

// Copies for one plan.
struct TierCopies {
  NamedCopies blocks;
  NamedCopies tails;
  std::vector<SlotCopy> disk = {};
};

// How far the blocks of one sequence are registered. A value that the sequence keeps.
struct PrefixCursor {
  int64_t num_blocks = 0;  // registered, or found to be in the index already
  BlockId last_block = 0;  // that the index holds for the last of them
  uint64_t last_serial = 0;
  bool broken = false;  // the chain before it left the index: nothing later can be found
};

}  // namespace tessera::coordinator

#endif  // TESSERA_COORDINATOR_SCHEDULER_PREFIX_MATCH_H_
