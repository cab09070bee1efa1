// Sequence: the scheduler's record of one choice of a request, from Enqueue to Finish.
// Plain state; DpRank and the Scheduler change it. Not seen outside of this folder.
//
// Lengths, with `tokens` = prompt + accepted generated tokens:
//   computed <= planned <= max_length
// planned < tokens.size(): the tokens from there on are known and can be planned. While a
// sample is unaccepted, the next token is the one that the last step samples, and
// `planned` is where it stands at most: if every draft of the steps in flight does. Each
// accepted step takes back what it did not reach.
#ifndef TESSERA_COORDINATOR_SCHEDULER_SEQUENCE_H_
#define TESSERA_COORDINATOR_SCHEDULER_SEQUENCE_H_

#include <algorithm>
#include <cstdint>
#include <optional>
#include <vector>

#include "coordinator/scheduler/block_manager.h"
#include "coordinator/scheduler/scheduler.h"

namespace tessera::coordinator {

struct TenantAccount;

// The part of a sequence's tail block table that it holds: the blocks from the first that
// a token to compute can see, up to what is planned. Empty for a model without them.
struct TailTable {
  int64_t begin = 0;  // index of the first of `blocks`
  std::vector<BlockId> blocks;
  int64_t num_named = 0;  // index up to which plans have named them

  int64_t end() const { return begin + static_cast<int64_t>(blocks.size()); }
};

// How far the blocks of a sequence that a prefill rank computes are at its decode rank
// (hand_over.h).
struct HandOver {
  int target = 0;          // the decode rank
  int64_t num_blocks = 0;  // to hand over
  int64_t num_tokens = 0;  // to compute before: those of the blocks, or what is planned
                           // where it was given up
  PrefixCursor cursor;     // in the target's index, behind what is there
  std::vector<uint64_t> serials;  // there, of each of those
  int64_t num_tails = 0;          // likewise there, of the last blocks
  // Of the target's host, that have come and stay until the hand-over ends.
  std::vector<BlockId> blocks;
  std::vector<BlockId> tails;
};

// What a waiting sequence has asked of a rank's disk.
struct DiskWait {
  int dp_rank = 0;
  absl::Time deadline;  // it is computed without from then on
  DiskPrefix prefix;
};

// External synchronisation.
struct Sequence {
  SequenceSpec spec;  // its prompt moved into `tokens`
  TenantAccount* tenant = nullptr;
  std::vector<int32_t> tokens;
  int64_t prompt_length = 0;
  int64_t max_length = 0;  // of tokens, by max_tokens and max_model_len
  uint64_t order = 0;      // of Enqueue; kept by a preempted sequence
  PrefixKey root;
  std::vector<PrefixKey>
      keys;  // of the full blocks of `tokens`, as far as they were needed

  // Log-probabilities of the prompt's tokens from the second on, as far as they came.
  std::vector<proto::SampledToken> prompt_scores;

  // While it runs.
  int dp_rank = -1;  // -1: waiting or finished
  uint32_t slot = 0;
  bool prefilling = false;   // until a plan reaches the end of the known tokens
  bool restoring = false;    // until plans have restored what it was admitted with
  int64_t num_restored = 0;  // blocks of that, from the first on, that they have
  std::vector<BlockId> blocks;
  TailTable tail;
  PrefixCursor cursor;
  int64_t planned = 0;
  int64_t computed = 0;  // by accepted steps

  std::optional<HandOver> hand_over;  // while it runs on a prefill rank
  bool handed_over = false;  // since its last token; it is prefilled for nobody again

  // Outlives preemption: plans in flight answer into these.
  int unaccepted_samples = 0;
  int steps_in_flight = 0;
  uint64_t last_step = 0;  // that named its blocks

  // While it waits: the scheduler's count of releases when no rank had room for it.
  std::optional<uint64_t> misfit;
  uint64_t overtook =
      0;  // the claim (block_claim.h) that it was admitted beside; 0: none

  std::optional<DiskWait> disk_wait;  // until that is over, it is not admitted
  bool asked_disk = false;            // since it ran last
  int64_t waiting_tokens = 0;         // what it adds to the queue's token count
  int64_t cached_tokens = 0;
  int64_t host_cached_tokens = 0;  // of them, from the host tier
  int64_t disk_cached_tokens = 0;  // and from the disk tier
  int64_t lost_tokens = 0;  // while it waits: computed by steps before it was preempted
  bool started = false;
  bool finished = false;

  bool running() const { return dp_rank >= 0; }
  // Back to waiting; its blocks have been given back.
  void LeaveRank() {
    dp_rank = -1;
    prefilling = restoring = false;
    blocks.clear();
    tail = TailTable();
    lost_tokens = std::max(lost_tokens, computed);
    planned = computed = 0;
  }
  int64_t num_tokens() const { return static_cast<int64_t>(tokens.size()); }
  // That its tokens need.
  int64_t num_blocks(int64_t block_size) const {
    return (num_tokens() - 1) / block_size + 1;
  }
  // Plannable as explicit tokens where it runs.
  int64_t num_known() const {
    return (hand_over.has_value() ? hand_over->num_tokens : num_tokens()) - planned;
  }
  // Nothing of it is left for its prefill rank to plan.
  bool awaits_hand_over() const { return hand_over.has_value() && num_known() <= 0; }
  bool takes_tokens() const { return !finished && num_tokens() < max_length; }
  // Whether something can be planned: the length limit counts samples that are still in
  // flight, one token of each.
  bool plannable() const { return num_tokens() + unaccepted_samples < max_length; }

  PrefixQuery query(int64_t max_blocks) const {
    return {
        .tenant = spec.tenant, .tokens = tokens, .keys = keys, .max_blocks = max_blocks};
  }
};

// Scheduling order inside a tenant: lower priority value, then earlier deadline, then
// earlier arrival in the queue.
struct RunsBefore {
  bool operator()(const Sequence* a, const Sequence* b) const {
    if (a->spec.priority != b->spec.priority) {
      return a->spec.priority < b->spec.priority;
    }
    return a->spec.deadline != b->spec.deadline ? a->spec.deadline < b->spec.deadline
                                                : a->order < b->order;
  }
};

}  // namespace tessera::coordinator

#endif  // TESSERA_COORDINATOR_SCHEDULER_SEQUENCE_H_
