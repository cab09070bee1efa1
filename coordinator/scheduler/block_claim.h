// BlockClaim: what keeps a sequence that waits for many blocks from stopping everybody
// behind it, and them from keeping it out. The first sequence that finds no rank with
// room claims its blocks on one rank. Others may overtake it there as long as all
// overtakers together hold no more than half of what the rank has beside the claim: the
// other half is for what they still generate. So the holder waits for those that ran
// before it, at most, and then for a bounded number of overtakers. Once sequences of a
// worse priority give their places up for the holder, none such overtakes it there: it
// would take what they gave.
//
// Not seen outside of this folder.
#ifndef TESSERA_COORDINATOR_SCHEDULER_BLOCK_CLAIM_H_
#define TESSERA_COORDINATOR_SCHEDULER_BLOCK_CLAIM_H_

#include <cstdint>
#include <span>

#include "coordinator/scheduler/sequence.h"

namespace tessera::coordinator {

// External synchronisation. Sequences are borrowed; Drop is called before one goes.
class BlockClaim {
 public:
  bool active() const { return holder_ != nullptr; }
  Sequence* holder() const { return holder_; }  // null: nobody
  bool HeldBy(const Sequence& sequence) const { return holder_ == &sequence; }

  // `holder` claims `num_blocks` on `dp_rank`; in place of a holder of worse priority as
  // well, otherwise only where nobody does.
  void Take(Sequence* holder, int dp_rank, int64_t num_blocks);

  // Where it is; not meant where nobody holds it.
  int dp_rank() const { return dp_rank_; }

  // The first sequence gives its place on `dp_rank` up for the holder: the claim is there
  // from now on, and closed to worse priorities until it ends.
  void MakeRoom(int dp_rank);
  bool makes_room() const { return makes_room_; }

  // `sequence` waits no more; the claim ends if it is the holder.
  void Drop(const Sequence& sequence);
  // Counts ends of claims: what was refused before may be allowed now.
  uint64_t num_drops() const { return num_drops_; }

  // Whether `sequence`, of `num_blocks` blocks at its admission, may be admitted on a
  // rank of `total_blocks` with `running`.
  bool Allows(const Sequence& sequence, int dp_rank, int64_t num_blocks,
              std::span<Sequence* const> running, int64_t total_blocks) const;

  // `sequence` was admitted on `dp_rank`.
  void Admitted(Sequence* sequence, int dp_rank);

 private:
  Sequence* holder_ = nullptr;
  int dp_rank_ = 0;
  int64_t num_blocks_ = 0;
  uint64_t id_ = 0;  // of the claim; overtakers are marked with it
  int64_t num_overtakers_ = 0;
  bool makes_room_ = false;
  uint64_t num_drops_ = 0;
};

}  // namespace tessera::coordinator

#endif  // TESSERA_COORDINATOR_SCHEDULER_BLOCK_CLAIM_H_
