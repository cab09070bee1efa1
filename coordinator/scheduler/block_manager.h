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
//
// From other ranks: contents that another rank computed come into host blocks (Receive),
// linked into the chain of this rank's index as if they had been evicted there.
//
// Tiers: with host blocks (host_tier.h), contents that are evicted go there, and a match
// goes on there: Acquire gives such contents blocks of the device again. Both are copies
// that a plan must name (TakeCopies), not all at once (pending_copies.h): the offload of
// a block before the plan that writes it does (BeforeWrite), a restore before the block
// is read (NameRestores). With slots of a disk behind that (disk_tier.h), what leaves the
// host is written there; MatchDisk says what of a prefix would have to come back from it,
// and Fetch gets it into the host, from where it is matched like anything there.
#ifndef TESSERA_COORDINATOR_SCHEDULER_BLOCK_MANAGER_H_
#define TESSERA_COORDINATOR_SCHEDULER_BLOCK_MANAGER_H_

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"

#include "coordinator/scheduler/block_pool.h"
#include "coordinator/scheduler/disk_tier.h"
#include "coordinator/scheduler/host_tier.h"
#include "coordinator/scheduler/pending_copies.h"
#include "coordinator/scheduler/prefix_hash.h"
#include "coordinator/scheduler/prefix_match.h"
#include "coordinator/scheduler/tail_blocks.h"

namespace tessera::coordinator {

// Cached blocks of one tenant that no other evicts.
struct TenantFloor {
  std::string tenant;
  int64_t num_blocks = 0;
};

struct BlockManagerOptions {
  int64_t num_blocks = 0;
  int64_t block_size = 16;
  bool enable_prefix_caching = true;
  int64_t num_tail_blocks = 0;  // 0: the model keeps none
  int64_t tail_tokens = 0;
  int64_t num_host_blocks = 0;  // 0: no host tier
  int64_t num_host_tail_blocks = 0;
  int64_t num_disk_blocks = 0;  // 0: no disk tier
  int64_t num_disk_tail_blocks = 0;
  int64_t max_disk_copies = 0;  // under way
  // Of tail blocks, the same part of those that one sequence can spare is kept; of host
  // blocks, disk blocks and tail blocks of either, the same part of all.
  std::vector<TenantFloor> floors = {};
};

// External synchronisation.
class BlockManager {
 public:
  // kInvalidArgument: no blocks, a block size below one, more than 2^31 tokens, too few
  // tail blocks for one sequence, or floors above the blocks.
  static absl::StatusOr<std::unique_ptr<BlockManager>> Create(
      const BlockManagerOptions& options);

  // Blocks that no sequence refers to, cached ones included; and those of them, and of
  // the tail blocks, that Allocate could give to a tenant.
  int64_t num_free() const { return pool_.num_free(); }
  int64_t num_free_for(std::string_view tenant) const {
    return pool_.num_free_for(GroupOf(tenant));
  }
  int64_t num_free_tails_for(std::string_view tenant) const {
    return tail_pool().num_free_for(GroupOf(tenant));
  }
  int64_t num_cached() const { return pool_.num_cached(); }
  int64_t num_used() const { return pool_.num_used(); }
  int64_t num_blocks() const { return pool_.num_blocks(); }
  uint64_t num_evictions() const { return pool_.num_evictions(); }
  // The counts of the tail blocks.
  const BlockPool& tail_pool() const { return tails_.pool(); }
  bool has_tails() const { return tail_pool().num_blocks() > 0; }
  const HostTier& host() const { return host_; }
  const DiskTier& disk() const { return disk_; }

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

  // The longest prefix with what only the disk has. No items: Match finds as much. No
  // more of it than half of the host blocks could take.
  DiskPrefix MatchDisk(const PrefixQuery& query) const;

  // Names fetches of what the disk alone has of `prefix`, as far as copies and host
  // blocks have room in this plan. False: nothing of it is on its way, or to come.
  bool Fetch(std::string_view tenant, DiskPrefix* prefix);

  // As DiskTier; what was fetched is a content of the host from here on.
  absl::Status CheckDiskReport(uint64_t num_done,
                               std::span<const uint64_t> failed) const {
    return disk_.CheckReport(num_done, failed);
  }
  // Returns how many copies failed.
  uint64_t TakeDiskReport(uint64_t num_done, std::span<const uint64_t> failed);

  // Takes a reference to each block and tail block of a match, which then all have blocks
  // on the device, and returns the cursor that continues after it. The caller has seen
  // that none of `num_spare` is negative. Contents that come from the host can be matched
  // at once; who holds them reads none before NameRestores has come by.
  PrefixCursor Acquire(std::string_view tenant, PrefixMatch* match);

  // Appends `count` blocks with one reference each for the tenant; evicts cached ones
  // where needed. False, and nothing changed, if fewer are free.
  bool Allocate(int64_t count, std::vector<BlockId>* blocks,
                std::string_view tenant = {});
  bool AllocateTails(int64_t count, std::vector<BlockId>* blocks,
                     std::string_view tenant = {});

  // Begins a plan: what the last one read from the host may be overwritten.
  void BeginPlan();
  // The plan writes these, which the caller holds and nobody else reads.
  void BeforeWrite(std::span<const BlockId> blocks);
  void BeforeTailWrite(std::span<const BlockId> tails);
  // The plan restores those of these blocks, or tail blocks, that were not yet, in their
  // order; at most `limit`, which is reduced. Returns how many of them, from the first
  // on, need no more.
  int64_t NameRestores(std::span<const BlockId> blocks, int64_t* limit);
  int64_t NameTailRestores(std::span<const BlockId> tails, int64_t* limit);
  // What the plan under construction must copy, in the order of the calls above.
  TierCopies TakeCopies() {
    return {block_copies_.Take(), tail_copies_.Take(), disk_.TakeNamed()};
  }

  // Drops one reference to each. Registered blocks become cached, the last of `blocks` to
  // be evicted first, others free. Tail blocks likewise if one is kept with a registered
  // block. What was not restored before the last who wanted it left stays on the host.
  void Release(std::span<const BlockId> blocks);
  void ReleaseTails(std::span<const BlockId> blocks);

  // Registers the block after `cursor`, which the caller holds, as filled with the tokens
  // that `query` gives for it, and advances. If the index has that content already it
  // stays where it is; other content under the same key is dropped from the index.
  void Register(const PrefixQuery& query, BlockId block, PrefixCursor* cursor);

  // Keeps the full tail block `tail`, which the caller holds, with the content that
  // Register last advanced `cursor` over, unless that has one or left the index.
  void KeepTail(const PrefixCursor& cursor, BlockId tail);

  // Extends the chain of `cursor`, which Receive alone has moved, by the next content of
  // `query`, and advances. kNoBlock: it is here, on the device or the host. Otherwise the
  // host block into which the plan under construction must receive it; that is pinned
  // until EndReceive. The cursor is broken where the host has no place for it, or where
  // the chain before it left this rank.
  BlockId Receive(const PrefixQuery& query, PrefixCursor* cursor);
  // The same for the tail block of the content `serial` under `key`; nullopt: no place.
  std::optional<BlockId> ReceiveTail(std::string_view tenant, const PrefixKey& key,
                                     uint64_t serial);
  // What came is like any content of the host from the plan under construction on.
  void EndReceive(std::span<const BlockId> blocks, std::span<const BlockId> tails);

  // Pins of the host tier that are not of Receive: of restores to come or just named, and
  // what is reserved for fetches.
  int64_t num_restore_pins() const {
    return block_copies_.num_restoring() + host_.num_unpinned() +
           disk_.num_fetching(/*tail=*/false);
  }
  int64_t num_tail_restore_pins() const {
    return tail_copies_.num_restoring() + host_.num_unpinned_tails() +
           disk_.num_fetching(/*tail=*/true);
  }

  // Forgets all references and content.
  void Reset();

  int32_t reference_count(BlockId block) const { return pool_.reference_count(block); }

  // Recounts everything; kInternal names the first difference. For tests: linear in the
  // blocks.
  absl::Status CheckInvariants() const;

 private:
  explicit BlockManager(const BlockManagerOptions& options);

  std::span<int32_t> TokensOf(BlockId block);
  std::span<const int32_t> TokensOf(BlockId block) const;
  // Of the contents that count against a tenant's floor; 0 without one.
  uint32_t GroupOf(std::string_view tenant) const;
  // Whether a content is block `idx` of `query` after `parent_serial`.
  bool Is(const BlockContent& content, std::span<const int32_t> tokens,
          const PrefixQuery& query, int64_t idx, uint64_t parent_serial) const;
  // The block of the device, and of the host, that holds block `idx` of `query` after
  // `parent_serial`; kNoBlock if there is none.
  BlockId FindOnDevice(const PrefixQuery& query, int64_t idx,
                       uint64_t parent_serial) const;
  BlockId FindOnHost(const PrefixQuery& query, int64_t idx, uint64_t parent_serial) const;
  // The slot of the disk, likewise.
  BlockId FindOnDisk(const PrefixQuery& query, int64_t idx, uint64_t parent_serial) const;
  // Whether the content of an item is on the device or the host.
  bool IsHere(const DiskPrefix::Item& item) const;
  // What `host`, which loses its content, holds goes to the disk.
  void Spill(BlockId host);
  void SpillTail(BlockId host);
  // Whether the content before `cursor` is in either tier.
  bool Lives(const PrefixQuery& query, const PrefixCursor& cursor) const;
  // Shortens `match`, of contents with these serials, as the file comment says, and finds
  // its tail blocks.
  void MatchTails(std::span<const uint64_t> serials, PrefixMatch* match) const;
  void CountSpare(std::string_view tenant, PrefixMatch* match) const;
  // Puts a content into `block`, which is used and has none.
  void Install(BlockId block, BlockContent content, std::span<const int32_t> tokens,
               uint32_t group);
  // The same from the host, into new blocks.
  void Restore(BlockId host, uint32_t group, BlockId* block);
  void RestoreTail(BlockId host, BlockId kv_block, uint32_t group, BlockId* tail);
  // A cached block and its tail block, or a tail block alone, go to the host.
  void Evict(BlockId block);
  void EvictTail(BlockId kv_block, BlockId tail);
  void Unregister(BlockId block);

  const BlockManagerOptions options_;
  std::map<std::string, uint32_t, std::less<>>
      groups_;  // by tenant, of those with a floor
  BlockPool pool_;
  TailBlocks tails_;
  HostTier host_;
  DiskTier disk_;
  PendingCopies block_copies_;
  PendingCopies tail_copies_;
  std::vector<BlockContent> blocks_;
  std::vector<int32_t> tokens_;  // [num_blocks, block_size]: of registered blocks
  absl::flat_hash_map<PrefixKey, BlockId> index_;
  uint64_t next_serial_ = 1;
};

}  // namespace tessera::coordinator

#endif  // TESSERA_COORDINATOR_SCHEDULER_BLOCK_MANAGER_H_
