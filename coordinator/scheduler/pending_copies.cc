#include "coordinator/scheduler/pending_copies.h"

#include "common/check.h"
#include "common/status.h"

namespace tessera::coordinator {

PendingCopies::PendingCopies(int64_t num_blocks, int64_t num_host_blocks)
    : offload_to_(static_cast<size_t>(num_blocks), kNoBlock),
      offload_from_(static_cast<size_t>(num_host_blocks), kNoBlock),
      restore_from_(static_cast<size_t>(num_blocks), kNoBlock),
      named_to_(static_cast<size_t>(num_host_blocks), false) {}

void PendingCopies::Reset() {
  offload_to_.assign(offload_to_.size(), kNoBlock);
  offload_from_.assign(offload_from_.size(), kNoBlock);
  restore_from_.assign(restore_from_.size(), kNoBlock);
  named_to_.assign(named_to_.size(), false);
  num_restoring_ = 0;
  named_ = NamedCopies();
}

void PendingCopies::Offload(BlockId device, BlockId host) {
  // A block that waits for either has no content of its own to be kept.
  TESSERA_CHECK_EQ(offload_to_[device], kNoBlock);
  TESSERA_CHECK_EQ(restore_from_[device], kNoBlock);
  GiveUpOffloadTo(host);
  offload_to_[device] = host;
  offload_from_[host] = device;
}

void PendingCopies::GiveUpOffloadTo(BlockId host) {
  const BlockId device = std::exchange(offload_from_[host], kNoBlock);
  if (device != kNoBlock) {
    offload_to_[device] = kNoBlock;
  }
}

void PendingCopies::Restore(BlockId device, BlockId host) {
  TESSERA_CHECK_EQ(restore_from_[device], kNoBlock);
  restore_from_[device] = host;
  ++num_restoring_;
}

void PendingCopies::NameOffload(BlockId device) {
  const BlockId host = std::exchange(offload_to_[device], kNoBlock);
  if (host != kNoBlock) {
    offload_from_[host] = kNoBlock;
    named_to_[host] = true;
    named_.offloads.emplace_back(device, host);
  }
}

NamedCopies PendingCopies::Take() {
  for (const auto& [device, host] : named_.offloads) {
    named_to_[host] = false;
  }
  return std::exchange(named_, NamedCopies());
}

BlockId PendingCopies::NameRestore(BlockId device) {
  const BlockId host = GiveUpRestore(device);
  // Its own old content goes first, and what it reads must be there.
  NameOffload(device);
  if (offload_from_[host] != kNoBlock) {
    NameOffload(offload_from_[host]);
  }
  named_.restores.emplace_back(device, host);
  return host;
}

BlockId PendingCopies::GiveUpRestore(BlockId device) {
  const BlockId host = std::exchange(restore_from_[device], kNoBlock);
  TESSERA_CHECK(host != kNoBlock);
  --num_restoring_;
  return host;
}

absl::Status PendingCopies::CheckInvariants() const {
  int64_t restoring = 0;
  for (size_t device = 0; device < offload_to_.size(); ++device) {
    const BlockId host = offload_to_[device];
    if (host != kNoBlock && offload_from_[host] != device) {
      return InternalF("block {} is to be copied to host block {}, which waits for {}",
                       device, host, offload_from_[host]);
    }
    restoring += restore_from_[device] != kNoBlock ? 1 : 0;
  }
  if (restoring != num_restoring_) {
    return InternalF("{} restores pending, expected {}", restoring, num_restoring_);
  }
  return absl::OkStatus();
}

}  // namespace tessera::coordinator
