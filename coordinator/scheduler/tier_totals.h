// Counts of what the prefix cache's tiers, and ranks that prefill for others, came to.
#ifndef TESSERA_COORDINATOR_SCHEDULER_TIER_TOTALS_H_
#define TESSERA_COORDINATOR_SCHEDULER_TIER_TOTALS_H_

#include <cstdint>

namespace tessera::coordinator {

// What the tiers of the prefix cache gave and took, since start.
struct TierTotals {
  uint64_t host_hit_tokens = 0;   // of prefix hits, those that came from the host
  uint64_t disk_hit_tokens = 0;   // likewise, that had been fetched from the disk
  uint64_t offloaded_blocks = 0;  // tail blocks included
  uint64_t restored_blocks = 0;   // likewise
  // Of what preempted sequences had computed: found again when they came back, in either
  // tier, and not.
  uint64_t resumed_tokens = 0;
  uint64_t recomputed_tokens = 0;
  // Of the disk, tail blocks included, named by plans; and how many of them failed.
  uint64_t spilled_blocks = 0;
  uint64_t fetched_blocks = 0;
  uint64_t failed_disk_copies = 0;
  uint64_t disk_waits = 0;           // of sequences, for what they wanted
  uint64_t given_up_disk_waits = 0;  // of those, at max_disk_wait

  void Add(const TierTotals& other);
};

// What prefill ranks handed to decode ranks, since start.
struct HandOverTotals {
  uint64_t sequences = 0;  // wholly
  uint64_t given_up = 0;   // sequences of which something was left to compute again
  uint64_t tokens = 0;     // of the blocks that were sent
  uint64_t blocks = 0;     // sent, tail blocks included
  // Of full blocks, that a decode rank computed again: given up, or evicted before.
  uint64_t recomputed_tokens = 0;

  void Add(const HandOverTotals& other);
};

}  // namespace tessera::coordinator

#endif  // TESSERA_COORDINATOR_SCHEDULER_TIER_TOTALS_H_
