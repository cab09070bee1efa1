// HandOvers: prefill and decode on separate ranks of a group. A long prompt is computed
// on a prefill rank, up to its last full block before the last token; its blocks go to
// the decode rank that was chosen for it, as they are accepted, in bounded numbers per
// step, into host blocks there. When all are there the sequence leaves the prefill rank,
// without having sampled, and waits again: its decode rank then admits it as a hit in the
// host tier and computes the rest. So a plan knows nothing new but the transfers, and
// what a decode rank lacks after all, it computes itself.
//
// Which ranks may admit a sequence (Places):
// - Decode ranks that lack fewer than `prefill_min_tokens` of it, as long as one of them
//   has a slot; all decode ranks if its prompt is to be scored, which needs every
//   position.
// - Else the prefill ranks, if a decode rank can take its blocks: those of all sequences
//   on their way to one, or that wait to be admitted there, together have room in its
//   host tier. It waits where others leave none, and goes to the decode ranks where it
//   could never have.
// - What was handed over goes to the ranks that have it; to all decode ranks if what it
//   had was evicted before it got a slot. Only a token that it generates lets it be
//   prefilled for it again, so that it cannot go round for ever.
//
// A hand-over ends early (given_up) where the target has no place for a block after all,
// or lost what the next one goes on from; what is there by then is a hit.
//
// Not seen outside of this folder.
#ifndef TESSERA_COORDINATOR_SCHEDULER_HAND_OVER_H_
#define TESSERA_COORDINATOR_SCHEDULER_HAND_OVER_H_

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"

#include "coordinator/scheduler/dp_rank.h"
#include "coordinator/scheduler/scheduler.h"
#include "coordinator/scheduler/sequence.h"
#include "proto/step_plan.h"

namespace tessera::coordinator {

bool IsAmong(std::span<DpRank* const> places, int dp_rank);

// External synchronisation. Ranks and sequences are borrowed for each call; a sequence
// that has a hand-over is given to Drop before it waits or goes.
class HandOvers {
 public:
  using Ranks = std::span<const std::unique_ptr<DpRank>>;

  // Of `options`, which were checked, those of ranks, blocks and transfers count.
  explicit HandOvers(const SchedulerOptions& options);

  // Whether ranks have roles at all; if not, every rank is a place for everything.
  bool enabled() const { return num_prefill_ranks_ > 0; }
  bool Prefills(int dp_rank) const { return dp_rank < num_prefill_ranks_; }

  // The ranks that may admit a waiting sequence whose keys cover its tokens, rising;
  // none: it waits until a hand-over ends.
  std::vector<DpRank*> Places(Ranks ranks, const Sequence& sequence) const;

  // The sequence is about to be admitted on a prefill rank that Places gave in this plan:
  // chooses its decode rank.
  void Begin(Ranks ranks, Sequence* sequence) const;

  // Names, in `plans` just begun, what they transfer. Sequences whose hand-over ended by
  // that are appended to `ended`; they run on their prefill rank still, and no later plan
  // may name them there.
  void Transfer(Ranks ranks, std::span<proto::StepPlan> plans,
                std::vector<Sequence*>* ended);

  // Whether a plan has something to transfer.
  bool has_work(Ranks ranks) const;

  // The sequence, which may have a hand-over, has left its rank or ends while it waits.
  void Drop(Ranks ranks, Sequence* sequence);

  // The first of those that wait to be admitted where their blocks are, by arrival, that
  // `may` go; null if none does.
  Sequence* FindArrived(absl::FunctionRef<bool(const Sequence&)> may) const;

  // A sequence that was handed over was admitted with so many tokens computed.
  void Admitted(Sequence* sequence, int64_t num_tokens);

  // A new epoch: no rank has anything, and every sequence is given to Forget.
  void Reset() { arrived_.clear(); }
  static void Forget(Sequence* sequence);

  // Counts what may let a sequence in that found no place.
  uint64_t num_ends() const { return num_ends_; }
  const HandOverTotals& totals() const { return totals_; }

  // kInternal: pins of host blocks that no restore and no hand-over accounts for. For
  // tests: linear.
  absl::Status CheckInvariants(Ranks ranks) const;

 private:
  // Blocks on their way to a decode rank, when all of them have come.
  struct Inbound {
    int64_t num_sequences = 0;
    int64_t num_blocks = 0;
    int64_t num_tails = 0;
  };
  // What of one plan is left of `max_transfers`, and its transfers.
  struct PlanRoom {
    std::vector<int64_t> sends;
    std::vector<int64_t> receives;
    std::span<proto::StepPlan> plans;
  };
  enum class Outcome { kGoesOn, kDone, kGivenUp };
  // What waits to be admitted where its blocks are.
  struct Arrived {
    Sequence* sequence = nullptr;
    int dp_rank = 0;
    int64_t num_blocks = 0;
  };

  int64_t NumBlocks(const Sequence& sequence) const;
  int64_t NumTails(const DpRank& rank, int64_t num_blocks) const;
  bool CouldReceive(const DpRank& rank, const Sequence& sequence) const;
  void Leave(const Sequence& sequence);
  bool CanReceive(Ranks ranks, const DpRank& rank, const Sequence& sequence) const;
  Inbound InboundOf(Ranks ranks, int dp_rank) const;
  std::vector<Sequence*> HandingOver(Ranks ranks) const;
  Outcome Advance(Ranks ranks, Sequence* sequence, PlanRoom* room);
  Outcome AdvanceTails(DpRank* target, Sequence* sequence, PlanRoom* room);
  static bool HasRoom(const Sequence& sequence, const PlanRoom& room);
  void Name(const Sequence& sequence, proto::BlockTransfer send, BlockId host,
            PlanRoom* room);

  const int64_t num_prefill_ranks_;
  const int64_t prefill_min_tokens_;
  const int64_t max_transfers_;
  const int64_t block_size_;
  const int64_t num_blocks_;
  std::vector<Arrived> arrived_;
  uint64_t next_id_ = 1;
  uint64_t num_ends_ = 0;
  HandOverTotals totals_;
};

}  // namespace tessera::coordinator

#endif  // TESSERA_COORDINATOR_SCHEDULER_HAND_OVER_H_
