// SequenceBlocks: the KV blocks and tail blocks that the sequences of one data-parallel
// rank hold, from admission to release. It stands between DpRank, which writes plans, and
// BlockManager, which knows blocks and contents but no sequences. It defers releases
// until no plan in flight names what is released, and registers filled blocks in the
// prefix index. It decides neither who is admitted nor who is preempted.
//
// Tail blocks: a step of positions [p, q) sees rows of [p - tail_tokens, q). A sequence
// therefore holds the tail blocks of [computed - tail_tokens, planned) at least: those
// before are given back when a step is accepted, since every plan in flight is about
// positions from `computed` on.
#ifndef TESSERA_COORDINATOR_SCHEDULER_SEQUENCE_BLOCKS_H_
#define TESSERA_COORDINATOR_SCHEDULER_SEQUENCE_BLOCKS_H_

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

#include "coordinator/scheduler/block_manager.h"
#include "coordinator/scheduler/scheduler.h"
#include "coordinator/scheduler/sequence.h"
#include "proto/step_plan.h"

namespace tessera::coordinator {

// Tokens of a prefix hit that were not on the device.
struct HitTokens {
  int64_t host = 0;
  int64_t disk = 0;
};

// External synchronisation. Sequences are borrowed for the call.
class SequenceBlocks {
 public:
  // Errors as BlockManager::Create; kInvalidArgument also where the tenants' floors leave
  // too few blocks for one sequence of max_model_len.
  static absl::StatusOr<std::unique_ptr<SequenceBlocks>> Create(
      const SchedulerOptions& options);

  const BlockManager& manager() const { return *manager_; }
  BlockManager& mutable_manager() { return *manager_; }
  bool has_tails() const { return manager_->has_tails(); }

  // The prefix hit that an admission would take; leaves at least one token to compute.
  PrefixMatch Match(const Sequence& sequence) const;
  // The same with what the disk alone has, which would have to be fetched.
  DiskPrefix MatchDisk(const Sequence& sequence) const;

  // Gives the sequence, which holds nothing, the match, blocks for all its tokens and the
  // tail block of the first token to compute; the caller has seen that they are there.
  // `planned` and `computed` become the length of the match. Returns where it was.
  HitTokens Admit(Sequence* sequence, PrefixMatch match);

  // Names restores of what the sequence was admitted with, in at most `limit` copies,
  // which is reduced. The plan may compute it if it is not `restoring` any more.
  void Restore(Sequence* sequence, int64_t* limit);

  // The plan computes positions from `begin` up to `end` of the sequence, and may write
  // rows of drafts behind them.
  void BeforeWork(const Sequence& sequence, int64_t begin, int64_t end);

  // Makes the block and the tail block for position `planned` exist. False, and nothing
  // changed: too few are free.
  bool GrowByOne(Sequence* sequence);

  // Whether what GrowByOne lacks comes free with the steps in flight; if so, it is spoken
  // for until the next BeginStep.
  bool AwaitGrowth(const Sequence& sequence);
  void BeginStep();

  // Writes what the tiers copy in this step into its plan, after all else of it.
  void NameCopies(proto::StepPlan* plan);
  const TierTotals& totals() const { return totals_; }

  // Takes what a result says of disk copies, which the manager's CheckDiskReport allows.
  void TakeDiskReport(const proto::StepResult& result);

  // Of `count` drafts after position `planned`, how many have blocks after giving the
  // sequence more of the spare ones. `num_kept` blocks of each kind stay free.
  int64_t GrowForDrafts(Sequence* sequence, int64_t count, int64_t num_kept);

  // Of `count` tokens from `planned` on, how many have tail blocks after giving the
  // sequence more, likewise.
  int64_t GrowTail(Sequence* sequence, int64_t count, int64_t num_kept);

  // The tail blocks of `sequence` that no plan has named, which now does.
  static std::vector<BlockId> TakeUnnamedTail(Sequence* sequence);

  // Takes all that the sequence holds, at once or when its last plan was accepted. What
  // it had computed is kept like any prefix, in the host tier if there is no room.
  void Release(Sequence* sequence);

  // One block and tail block that are free, for a probe in the plan of `step`, which
  // names them last.
  void TakeForProbe(uint64_t step, std::vector<BlockId>* blocks,
                    std::vector<BlockId>* tail_blocks);

  // Registers the blocks that the accepted tokens have filled, and gives back the tail
  // blocks that no token from `computed` on sees.
  void TakeComputed(const PrefixHash& hash, Sequence* sequence);

  // Frees what only plans up to `step` named: they were accepted.
  void ReleaseDeferred(uint64_t step);

  // Blocks that come free with the steps in flight.
  int64_t num_deferred() const;

  // Forgets everything; sequences' own tables are the caller's to clear.
  void Reset();

  // Compares reference counts with what `running` and the deferred releases hold;
  // kInternal names the first difference.
  absl::Status CheckInvariants(std::span<Sequence* const> running) const;

 private:
  struct DeferredRelease {
    uint64_t step = 0;  // the last that names them
    std::vector<BlockId> blocks;
    std::vector<BlockId> tail_blocks;
  };
  struct Growth {
    int64_t blocks = 0;
    int64_t tails = 0;
  };

  SequenceBlocks(const SchedulerOptions& options, std::unique_ptr<BlockManager> manager);

  HitTokens CountHit(const Sequence& sequence, const PrefixMatch& match);
  PrefixQuery QueryOf(const Sequence& sequence) const;
  // What position `planned` needs beside what the sequence holds.
  Growth Wanted(const Sequence& sequence) const;
  void RegisterFilled(const PrefixHash& hash, Sequence* sequence);
  void ReleasePassedTail(Sequence* sequence);
  // Index of the first tail block that the token at `position` sees.
  int64_t FirstTail(int64_t position) const;
  int64_t num_deferred_tails() const;
  absl::Status CheckTable(const Sequence& sequence) const;

  const int64_t block_size_;
  const int64_t tail_tokens_;
  const int64_t num_speculative_tokens_;
  const bool enable_prefix_caching_;
  std::unique_ptr<BlockManager> manager_;
  std::vector<DeferredRelease> deferred_;
  TierTotals totals_;
  // Tail blocks that running sequences leave behind with their steps in flight are
  // counted from these, which hold tail blocks.
  std::vector<const Sequence*> holders_;
  // Blocks and tail blocks to come for which sequences sit this step out.
  int64_t num_awaited_blocks_ = 0;
  int64_t num_awaited_tails_ = 0;
};

}  // namespace tessera::coordinator

#endif  // TESSERA_COORDINATOR_SCHEDULER_SEQUENCE_BLOCKS_H_
