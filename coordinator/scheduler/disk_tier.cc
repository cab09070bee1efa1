#include "coordinator/scheduler/disk_tier.h"

#include <algorithm>

#include "common/check.h"
#include "common/status.h"
#include "common/status_macros.h"

namespace tessera::coordinator {

DiskTier::DiskTier(Options options)
    : options_(std::move(options)),
      contents_(options_.num_blocks, options_.num_tail_blocks, options_.block_size,
                options_.floors, options_.tail_floors) {}

void DiskTier::Reset() {
  contents_.Reset();
  under_way_.clear();
  named_.clear();
  failed_.clear();
  num_done_ = 0;
  num_spilling_ = 0;
  num_fetching_[0] = num_fetching_[1] = 0;
}

bool DiskTier::MaySpill() const {
  return enabled() && has_room() &&
         num_spilling_ < std::max<int64_t>(1, options_.max_copies / 2);
}

void DiskTier::Name(const SlotCopy& copy) {
  under_way_.push_back(copy);
  named_.push_back(copy);
  num_spilling_ += copy.fetch ? 0 : 1;
}

void DiskTier::Spill(const BlockContent& content, std::span<const int32_t> tokens,
                     uint32_t group, BlockId host) {
  if (!MaySpill()) {
    return;
  }
  const BlockId slot = contents_.Keep(content, tokens, group);
  if (slot != kNoBlock) {
    Name({.host = host, .slot = slot, .serial = content.serial});
  }
}

void DiskTier::SpillTail(uint64_t serial, uint32_t group, BlockId host) {
  if (!MaySpill()) {
    return;
  }
  const BlockId slot = contents_.KeepTail(serial, group);
  if (slot != kNoBlock) {
    Name({.host = host, .slot = slot, .serial = serial, .tail = true});
  }
}

void DiskTier::Fetch(BlockId slot, bool tail, BlockId host) {
  TESSERA_CHECK(has_room());
  // What is being read is not overwritten.
  if (tail) {
    contents_.PinTail(slot);
  } else {
    contents_.Pin(slot);
  }
  ++num_fetching_[tail ? 1 : 0];
  Name({.host = host,
        .slot = slot,
        .serial = tail ? contents_.tail_serial(slot) : contents_.content(slot).serial,
        .tail = tail,
        .fetch = true});
}

absl::Status DiskTier::CheckReport(uint64_t num_done,
                                   std::span<const uint64_t> failed) const {
  if (num_done < num_done_ || num_done > num_named()) {
    return InternalF("{} disk copies are done, expected {} to {}", num_done, num_done_,
                     num_named());
  }
  for (const uint64_t number : failed) {
    if (number < num_done_ || number >= num_named()) {
      return InternalF("disk copy {} failed, expected one from {} up to {}", number,
                       num_done_, num_named());
    }
  }
  return absl::OkStatus();
}

uint64_t DiskTier::TakeReport(
    uint64_t num_done, std::span<const uint64_t> failed,
    absl::FunctionRef<void(const SlotCopy&, bool came)> fetched) {
  failed_.insert(failed.begin(), failed.end());
  uint64_t num_failed = 0;
  while (num_done_ < num_done) {
    const SlotCopy copy = under_way_.front();
    under_way_.pop_front();
    const bool came = failed_.erase(num_done_++) == 0;
    num_failed += came ? 0 : 1;
    if (copy.fetch) {
      --num_fetching_[copy.tail ? 1 : 0];
      fetched(copy, came);
      contents_.Release(copy.slot, copy.tail);
    } else {
      --num_spilling_;
    }
    if (!came) {
      Forget(copy);
    }
  }
  return num_failed;
}

void DiskTier::Forget(const SlotCopy& copy) {
  // Unless the slot has other content by now, or a read of it is to come, which fails.
  if (fetching(copy.slot, copy.tail)) {
    return;
  }
  if (copy.tail && contents_.tail_serial(copy.slot) == copy.serial) {
    contents_.DropTail(copy.slot);
  } else if (!copy.tail && contents_.content(copy.slot).serial == copy.serial) {
    contents_.Drop(copy.slot);
  }
}

absl::Status DiskTier::CheckInvariants() const {
  TESSERA_RETURN_IF_ERROR(contents_.CheckInvariants());
  int64_t fetching[2] = {};
  int64_t spilling = 0;
  for (const SlotCopy& copy : under_way_) {
    fetching[copy.tail ? 1 : 0] += copy.fetch ? 1 : 0;
    spilling += copy.fetch ? 0 : 1;
  }
  if (spilling != num_spilling_ || std::ssize(under_way_) > options_.max_copies ||
      fetching[0] != num_fetching_[0] || fetching[1] != num_fetching_[1] ||
      contents_.blocks().num_used() != fetching[0] ||
      contents_.tails().num_used() != fetching[1]) {
    return InternalF(
        "{} disk copies under way of {}; {} spills, expected {}; {} and {} slots are "
        "read, expected {} and {}",
        under_way_.size(), options_.max_copies, spilling, num_spilling_,
        contents_.blocks().num_used(), contents_.tails().num_used(), fetching[0],
        fetching[1]);
  }
  return absl::OkStatus();
}

}  // namespace tessera::coordinator
