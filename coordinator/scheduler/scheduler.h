// Scheduler: continuous batching with chunked prefill, as a pure function of its state
// and of the clock value it is given. It owns the waiting and running sequences, the
// block manager and the prefix index of every DP rank, and turns them into one StepPlan
// per DP rank and step; it takes the results back. It does no I/O, starts no thread and
// reads no clock.
//
// Blocks and tail blocks: a sequence has all blocks of its known tokens from its
// admission on. Tail blocks, which hold rows of the last tokens only, it gets with each
// chunk, which is cut to those that there are; it gives them back when the steps that
// could see them were accepted.
//
// Run-ahead: Plan(n + 1) may be called before Accept(n). A sequence that sampled in step
// n is then planned with `from_sample`; if Accept(n) finds that it stopped, the token of
// step n + 1 is dropped when it arrives and its blocks are freed only after the last plan
// that names them was accepted.
//
// Speculation: a decoding sequence is planned with up to num_speculative_tokens drafts,
// never more than its length and the step's tokens and blocks allow. How many of them
// stood is known only from Accept, so that positions of a plan sent ahead are upper
// bounds, blocks are there for all of them, and Accept takes the difference back. A stop
// among several tokens of one step is the caller's to find: it drops those after it.
//
// Order: the best priority first; inside it, tenants get tokens in the ratio of their
// weights (waiting_queue.h); inside a tenant, the earliest deadline first. A sequence of
// a worse priority gives up its place where a better one finds none. Where slots run out,
// a tenant above its share of them gives one up (slot_shares.h). Where blocks run
// out, the tenant that holds most for its weight gives some up. What waits for many
// blocks is overtaken within bounds (block_claim.h).
//
// A step's tokens: one for every sequence that decodes, then prompts. Of several prompts
// on a rank the one that came first gets a quarter of what is left, the others share the
// rest, shortest first inside a tenant: a long prompt delays a short one little and
// itself takes at most four times as long. Beside decodes the work of prompts is bounded
// as well, since a token behind a long context costs more (`prefill_cost_tokens`).
//
// Roles: ranks may prefill for others (`num_prefill_ranks`). What they computed is handed
// over through the host tier of the rank that decodes: see hand_over.h.
//
// Life of a sequence: waiting -> running (prefill chunks, then decode) -> finished.
// Preempted (no free block or tail block, or its place was given to a better priority):
// back to its place in the waiting queue, to go on from prompt + generated tokens. What
// it had computed stays in the prefix cache; with a host tier (`num_host_blocks`) that is
// where it goes when its blocks are needed, and it is read back instead of recomputed.
#ifndef TESSERA_COORDINATOR_SCHEDULER_SCHEDULER_H_
#define TESSERA_COORDINATOR_SCHEDULER_SCHEDULER_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"

#include "coordinator/requests/tenant_policy.h"
#include "coordinator/scheduler/tier_totals.h"
#include "proto/step_plan.h"

namespace tessera::coordinator {

using SequenceId = uint64_t;

struct SchedulerOptions {
  int64_t num_dp_ranks = 1;
  int64_t max_num_seqs = 64;             // running per DP rank = slots of a worker
  int64_t max_num_batched_tokens = 512;  // per DP rank and step
  int64_t max_model_len = 0;
  int64_t block_size = 16;
  int64_t num_blocks = 0;  // per DP rank
  // Of models that keep rows of the last tokens only: tail blocks per DP rank, and how
  // many tokens before it a token sees in them. 0: the model keeps none.
  int64_t num_tail_blocks = 0;
  int64_t tail_tokens = 0;
  // Copies of either in the host memory of a DP rank; what is evicted goes there.
  int64_t num_host_blocks = 0;
  int64_t num_host_tail_blocks = 0;
  // Copies of those on a disk of a DP rank (disk_tier.h), which are made and read back
  // beside the steps, so many at once; for how long a sequence waits for what it wants
  // from there before it is computed without. Not with roles.
  int64_t num_disk_blocks = 0;
  int64_t num_disk_tail_blocks = 0;
  int64_t max_disk_copies = 0;
  absl::Duration max_disk_wait = absl::Seconds(1);
  // Blocks and tail blocks that a step which also decodes reads back from the host per DP
  // rank; prompts whose prefix is longer wait for the steps that follow. 0: no bound.
  int64_t max_restores = 0;
  // Of the DP ranks the first so many only prefill; the others decode, and prefill
  // themselves what lacks fewer than `prefill_min_tokens`, more than a block. What one
  // computed for another goes there (hand_over.h) in steps of at most `max_transfers`
  // blocks and tail blocks that a rank sends, or receives. 0: every rank does everything.
  int64_t num_prefill_ranks = 0;
  int64_t prefill_min_tokens = 0;
  int64_t max_transfers = 0;
  int64_t max_waiting = 256;
  // The context behind which a token costs twice as much as at a prompt's start. In a
  // step that also decodes, a chunk behind a context of c tokens has at most
  // max_num_batched_tokens / (1 + c / prefill_cost_tokens), but at least 16 tokens. 0:
  // every token costs the same.
  int64_t prefill_cost_tokens = 0;
  std::vector<TenantPolicy> tenants = {};
  TenantPolicy other_tenants = {};  // of every tenant that `tenants` does not name
  bool enable_prefix_caching = true;
  int64_t num_speculative_tokens = 0;  // drafts per sequence and step, at most
  // Keys of prefix blocks cover the model digest and numerics id through this.
  std::string cache_key_prefix;
  // Random per process: nobody outside can then build colliding prefixes.
  std::array<uint64_t, 2> prefix_hash_key = {};
  uint64_t placement_version = 0;  // written into every plan
};

// One choice of a request.
struct SequenceSpec {
  SequenceId id = 0;
  std::string tenant;      // salts the prefix keys: tenants never share a block
  std::string cache_salt;  // salts them further, inside the tenant
  std::vector<int32_t> prompt;
  int64_t max_tokens = 0;
  proto::SamplingParams sampling;
  bool masked = false;  // a grammar decides what may be sampled: no drafts
  int32_t priority = 0;
  absl::Time arrival;
  absl::Time deadline;
};

// A token that the scheduler accepted, for the requests layer to turn into text.
struct AcceptedToken {
  SequenceId sequence = 0;
  int32_t index = 0;  // among the generated tokens of the sequence
  proto::SampledToken sampled;
  bool length_reached = false;  // it is the last that max_tokens or max_model_len allow
  // With the first one, if asked for: the prompt's tokens from the second on.
  std::vector<proto::SampledToken> prompt = {};
};

// Where a sequence stands.
struct SequenceProgress {
  int dp_rank = -1;             // -1: it waits
  int64_t computed_tokens = 0;  // by accepted steps
};

// So that neither stats nor the labels of metrics grow with the number of tenants.
inline constexpr size_t kMaxReportedTenants = 64;

// One configured tenant.
struct TenantStats {
  int64_t num_waiting = 0;
  int64_t num_running = 0;
  int64_t running_tokens = 0;     // of running sequences, at their greatest length
  uint64_t scheduled_tokens = 0;  // prompts and generated ones, recomputed ones again
  uint64_t preemptions = 0;
};

struct SchedulerStats {
  int64_t num_waiting = 0;
  int64_t num_running = 0;
  int64_t waiting_tokens = 0;
  int64_t blocks_total = 0;   // over all DP ranks
  int64_t blocks_used = 0;    // referenced by a sequence
  int64_t blocks_cached = 0;  // free, with reusable content
  int64_t tail_blocks_total = 0;
  int64_t tail_blocks_used = 0;
  int64_t tail_blocks_cached = 0;
  uint64_t prefix_query_tokens = 0;
  uint64_t prefix_hit_tokens = 0;
  // Cached, yet computed again since their tail blocks were gone.
  uint64_t prefix_shortened_tokens = 0;
  uint64_t preemptions = 0;
  // The host tier: blocks and tail blocks with content, and totals since start.
  int64_t host_blocks_total = 0;
  int64_t host_blocks_cached = 0;
  int64_t host_tail_blocks_total = 0;
  int64_t host_tail_blocks_cached = 0;
  int64_t disk_blocks_total = 0;
  int64_t disk_blocks_cached = 0;
  int64_t disk_tail_blocks_total = 0;
  int64_t disk_tail_blocks_cached = 0;
  TierTotals tiers;
  HandOverTotals hand_overs;
  // Of the first kMaxReportedTenants: those of SchedulerOptions::tenants in that order,
  // then those that were granted something later.
  std::vector<TenantStats> tenants;
};

// Work of a plan that waits for a mask, in the order of the plan's work.
struct MaskedWork {
  SequenceId sequence = 0;
  uint32_t slot = 0;
};

// What one Plan call scheduled; the counts are for metrics.
struct PlannedStep {
  std::vector<proto::StepPlan> plans;           // one per DP rank
  std::vector<std::vector<MaskedWork>> masked;  // likewise
  int64_t num_tokens = 0;
  int64_t num_prefill_tokens = 0;
  int64_t num_sequences = 0;
  bool empty() const { return num_tokens == 0; }
};

// External synchronisation: the step loop's thread.
class Scheduler {
 public:
  // kInvalidArgument: options that cannot work (fewer blocks than one sequence of
  // max_model_len…).
  static absl::StatusOr<std::unique_ptr<Scheduler>> Create(
      const SchedulerOptions& options);
  virtual ~Scheduler() = default;

  // The tenants' grants from now on, but for min_cached_blocks, which stay. Priorities of
  // what was enqueued stay, and what runs goes on. kInvalidArgument as Create; then
  // nothing changes.
  virtual absl::Status SetTenants(std::span<const TenantPolicy> tenants,
                                  const TenantPolicy& others) = 0;

  // kResourceExhausted: max_waiting sequences wait, or this tenant's share of them.
  // kInvalidArgument: it can never fit, the tenant's quota included, or its id lives.
  virtual absl::Status Enqueue(SequenceSpec spec) = 0;

  // Drops the sequence; its slot is released in the next plan, its blocks as soon as no
  // plan in flight names them. Unknown ids are ignored. Used for stops, cancels and
  // deadlines alike: every sequence ends by this call, also one whose length is reached.
  virtual void Finish(SequenceId id) = 0;

  // Sequences whose deadline is not after `now`, still to be finished by the caller.
  virtual std::vector<SequenceId> Expired(absl::Time now) const = 0;

  // The next step; the first of an epoch has number 1. At most two planned steps may be
  // unaccepted. Plans with releases or with nothing at all are still numbered steps;
  // callers skip a call when there is nothing to do (`has_work`: something can be
  // computed; releases alone wait for the next plan).
  virtual PlannedStep Plan(absl::Time now) = 0;
  virtual bool has_work() const = 0;

  // A step that computes and samples after the one token `token` on every DP rank, for
  // health: its result goes through Accept and yields no token. kFailedPrecondition:
  // steps are in flight, or a rank has no free slot or block.
  virtual absl::StatusOr<PlannedStep> PlanProbe(int32_t token) = 0;

  // Steps planned and not accepted: 0 to 2.
  virtual int num_in_flight() const = 0;

  // Results of the oldest unaccepted step, one per DP rank (of its TP rank 0). kInternal:
  // a result that does not answer the plan; the epoch must then be restarted.
  virtual absl::StatusOr<std::vector<AcceptedToken>> Accept(
      std::span<const proto::StepResult> results) = 0;

  // Tokens of the prompt that came from the prefix cache at its first admission, and
  // those of them that came from the host tier, and from the disk tier.
  virtual int64_t cached_tokens(SequenceId id) const = 0;
  virtual int64_t host_cached_tokens(SequenceId id) const = 0;
  virtual int64_t disk_cached_tokens(SequenceId id) const = 0;

  // Whether the sequence was ever part of a plan; false for unknown ids.
  virtual bool started(SequenceId id) const = 0;

  // Of a waiting one for unknown ids.
  virtual SequenceProgress progress(SequenceId id) const = 0;

  // Forgets plans in flight, empties caches, and returns every running sequence to the
  // waiting queue with its accepted tokens: the group was re-formed and starts from
  // nothing.
  virtual void StartEpoch(uint64_t epoch) = 0;

  virtual SchedulerStats stats() const = 0;

  // Recounts slots and blocks; kInternal names the first difference. For tests: linear in
  // everything.
  virtual absl::Status CheckInvariants() const = 0;
};

}  // namespace tessera::coordinator

#endif  // TESSERA_COORDINATOR_SCHEDULER_SCHEDULER_H_
