// DiskTier: the contents that have copies on the disk of one data-parallel rank: the
// third place where BlockManager finds a prefix. What leaves the host is written here
// (Spill), and read back into a host block when a sequence wants it (Fetch); both are
// copies that the next plan names and that the workers make later, in their order, so
// that a count says which are done. It never waits: where too many copies are under way
// already, what should be written is given up.
//
// A content can be found as soon as its write is named, since a read named later comes
// later. One whose write or read failed is forgotten.
#ifndef TESSERA_COORDINATOR_SCHEDULER_DISK_TIER_H_
#define TESSERA_COORDINATOR_SCHEDULER_DISK_TIER_H_

#include <cstdint>
#include <deque>
#include <set>
#include <span>
#include <utility>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"

#include "coordinator/scheduler/block_pool.h"
#include "coordinator/scheduler/host_tier.h"

namespace tessera::coordinator {

// One copy between a host block and a slot.
struct SlotCopy {
  BlockId host = 0;
  BlockId slot = 0;
  uint64_t serial = 0;  // of the content
  bool tail = false;
  bool fetch = false;
};

// External synchronisation.
class DiskTier {
 public:
  struct Options {
    int64_t num_blocks = 0;  // slots; none at all is a tier, too
    int64_t num_tail_blocks = 0;
    int64_t block_size = 0;
    int64_t max_copies = 0;  // under way, at most; half of them writes
    std::vector<int64_t> floors;
    std::vector<int64_t> tail_floors;
  };
  explicit DiskTier(Options options);

  bool enabled() const { return options_.num_blocks > 0; }
  // Its blocks are slots here.
  const HostTier& contents() const { return contents_; }

  // `host` holds a content, or a tail block, until the next plan begins: it is to be
  // written, unless it is here already or there is no place.
  void Spill(const BlockContent& content, std::span<const int32_t> tokens, uint32_t group,
             BlockId host);
  void SpillTail(uint64_t serial, uint32_t group, BlockId host);

  bool has_room() const { return std::ssize(under_way_) < options_.max_copies; }
  // The slot is to be read into `host`, which nobody else uses until that is done; there
  // is room.
  void Fetch(BlockId slot, bool tail, BlockId host);
  // Whether the slot is being read.
  bool fetching(BlockId slot, bool tail) const {
    return (tail ? contents_.tails() : contents_.blocks()).reference_count(slot) > 0;
  }
  int64_t num_fetching(bool tail) const { return num_fetching_[tail ? 1 : 0]; }

  // Copies named and done since Reset.
  uint64_t num_named() const { return num_done_ + under_way_.size(); }
  uint64_t num_done() const { return num_done_; }

  // kInternal: a report that is not about copies under way.
  absl::Status CheckReport(uint64_t num_done, std::span<const uint64_t> failed) const;
  // The workers have done the first `num_done` copies; those of these numbers failed.
  // `fetched` is told of each read while its slot still has the content, and whether that
  // came. Returns how many copies failed.
  uint64_t TakeReport(uint64_t num_done, std::span<const uint64_t> failed,
                      absl::FunctionRef<void(const SlotCopy&, bool came)> fetched);

  // What the plan under construction must copy, in order.
  std::vector<SlotCopy> TakeNamed() { return std::exchange(named_, {}); }

  void Reset();

  // kInternal names the first difference. For tests: linear.
  absl::Status CheckInvariants() const;

 private:
  bool MaySpill() const;
  void Name(const SlotCopy& copy);
  void Forget(const SlotCopy& copy);

  const Options options_;
  HostTier contents_;
  std::deque<SlotCopy> under_way_;
  std::vector<SlotCopy> named_;  // the last of them
  std::set<uint64_t> failed_;    // numbers of copies under way that a worker reported
  uint64_t num_done_ = 0;
  int64_t num_spilling_ = 0;
  int64_t num_fetching_[2] = {};
};

}  // namespace tessera::coordinator

#endif  // TESSERA_COORDINATOR_SCHEDULER_DISK_TIER_H_
