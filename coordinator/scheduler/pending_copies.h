// PendingCopies: copies between the blocks of one pool and their host blocks that are
// decided but named by no plan yet, so that no plan has to make many of them at once. An
// offload waits until its block is about to be written; a restore until somebody who
// holds its block has room for it in a plan. Nothing but numbers: which content goes
// where is BlockManager's to decide, and it keeps a host block that a restore reads.
//
// Inside a plan all offloads come before all restores, each in the order of naming.
#ifndef TESSERA_COORDINATOR_SCHEDULER_PENDING_COPIES_H_
#define TESSERA_COORDINATOR_SCHEDULER_PENDING_COPIES_H_

#include <cstdint>
#include <utility>
#include <vector>

#include "absl/status/status.h"

#include "coordinator/scheduler/block_pool.h"

namespace tessera::coordinator {

// Copies that a plan names, in their order: device and host block each.
struct NamedCopies {
  std::vector<std::pair<BlockId, BlockId>> offloads;
  std::vector<std::pair<BlockId, BlockId>> restores;
};

// External synchronisation.
class PendingCopies {
 public:
  PendingCopies(int64_t num_blocks, int64_t num_host_blocks);

  // `host` is to get the content of `device`, which has no other copy pending. An offload
  // to the same `host` that no plan has named is given up.
  void Offload(BlockId device, BlockId host);
  // `device`, which nobody has written since it was given out, is to get that of `host`.
  void Restore(BlockId device, BlockId host);
  bool restoring(BlockId device) const { return restore_from_[device] != kNoBlock; }
  int64_t num_restoring() const { return num_restoring_; }

  // `host` gets other content than that of an offload which no plan has named, if there
  // is one: that is given up.
  void GiveUpOffloadTo(BlockId host);

  // Whether `host` holds its content when the plan under construction begins: no offload
  // to it is pending or named by that plan.
  bool readable(BlockId host) const {
    return offload_from_[host] == kNoBlock && !named_to_[host];
  }

  // The plan under construction writes the block: it must name its offload, if there is
  // one.
  void NameOffload(BlockId device);
  // The plan names the restore of a block that is restoring, and the offloads that must
  // come before it. Returns the host block, which the plan reads.
  BlockId NameRestore(BlockId device);
  // Nobody wants the restore any more. Returns the host block.
  BlockId GiveUpRestore(BlockId device);

  // What was named since the last call.
  NamedCopies Take();

  void Reset();

  // kInternal names the first difference. For tests: linear.
  absl::Status CheckInvariants() const;

 private:
  std::vector<BlockId> offload_to_;    // by block; kNoBlock: none is pending
  std::vector<BlockId> offload_from_;  // by host block, likewise
  std::vector<BlockId> restore_from_;  // by block, likewise
  std::vector<bool> named_to_;         // by host block: an offload of `named_` goes there
  int64_t num_restoring_ = 0;
  NamedCopies named_;
};

}  // namespace tessera::coordinator

#endif  // TESSERA_COORDINATOR_SCHEDULER_PENDING_COPIES_H_
