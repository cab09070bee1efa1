// DpRank: one data-parallel rank as the scheduler sees it: slots, KV blocks and tail
// blocks, the running sequences in scheduling order, and the plan under construction. The
// Scheduler decides who enters; DpRank writes the plan, makes room for decodes by
// preemption, and takes results back. What sequences hold is SequenceBlocks' to know.
#ifndef TESSERA_COORDINATOR_SCHEDULER_DP_RANK_H_
#define TESSERA_COORDINATOR_SCHEDULER_DP_RANK_H_

#include <cstdint>
#include <deque>
#include <memory>
#include <span>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

#include "coordinator/scheduler/block_manager.h"
#include "coordinator/scheduler/planned_work.h"
#include "coordinator/scheduler/scheduler.h"
#include "coordinator/scheduler/sequence.h"
#include "coordinator/scheduler/sequence_blocks.h"
#include "proto/step_plan.h"
#include "routing/dp_rank_policy.h"

namespace tessera::coordinator {

struct RankStepTotals {
  int64_t num_tokens = 0;
  int64_t num_prefill_tokens = 0;
  int64_t num_sequences = 0;
  std::vector<MaskedWork> masked;
};

// External synchronisation. Sequences are borrowed: they must live while they run or have
// steps in flight here.
class DpRank {
 public:
  // `dp_rank` is its index in the group. Errors as BlockManager::Create.
  static absl::StatusOr<std::unique_ptr<DpRank>> Create(const SchedulerOptions& options,
                                                        int dp_rank);

  // Opens `plan`, which must stay valid until EndPlan.
  void BeginPlan(proto::StepPlan* plan);

  // One token for every sequence that decodes, with its drafts, and the tail block of the
  // next token for every one that prefills, best first. Those without a block preempt the
  // worst sequence, themselves included, unless blocks are about to come free. Preempted
  // ones have left the rank and are appended to `preempted`.
  void PlanDecodes(std::vector<Sequence*>* preempted);

  // Whether the plan has work that decodes.
  bool decodes() const { return totals_.num_tokens > 0; }

  // Opens the second half of a plan, in which prompts share what the decodes left. Where
  // `bounded`, their cost and what is restored for them are limited as well. The prompt
  // that came first has a quarter of either for itself.
  void BeginPrefills(bool bounded);

  // The best of the running prompts that have nothing in this plan yet, by
  // PrefillsBefore; null if there is none or what they share is used up.
  Sequence* NextPrefill() const;

  // Plans a chunk of a sequence that NextPrefill gave; no more than there are tail blocks
  // for.
  void PlanPrefill(Sequence* sequence);

  // Gives the rest to the prompt that came first, if it has nothing yet.
  void FinishPrefills();

  // Admits `sequence` with the match that `Match` gave in this plan, and plans its first
  // chunk, unless more must be restored before than this plan may. The caller has checked
  // `has_room`, `blocks_for_admission` and HasTailRoom.
  void Admit(Sequence* sequence, PrefixMatch match);

  // Plans a probe of one token; the caller has checked CanProbe.
  bool CanProbe() const {
    return has_free_slot() && blocks().num_free_for({}) > 0 &&
           (!blocks_->has_tails() || blocks().num_free_tails_for({}) > 0);
  }
  void AdmitProbe(int32_t token);

  // Closes the plan.
  RankStepTotals EndPlan();

  int64_t num_slots() const;

  // A slot and at least one token of those that prompts share are free.
  bool has_room() const { return has_free_slot() && shares_tokens(); }
  bool has_free_slot() const { return !free_slots_.empty(); }

  // The prefix hit that an admission would take; leaves at least one token to compute.
  PrefixMatch Match(const Sequence& sequence) const { return blocks_->Match(sequence); }
  DiskPrefix MatchDisk(const Sequence& sequence) const {
    return blocks_->MatchDisk(sequence);
  }
  // As BlockManager::Fetch, in the plan under construction.
  bool Fetch(std::string_view tenant, DiskPrefix* prefix) {
    return blocks_->mutable_manager().Fetch(tenant, prefix);
  }

  // Blocks that an admission with `match` may take beside the match itself. One block for
  // each running sequence is kept back, so that an admission is not followed by a
  // preemption at once.
  int64_t blocks_for_admission(const PrefixMatch& match) const;

  // What the policy sees of this rank for a sequence with `match`.
  routing::DpRankLoad LoadFor(const PrefixMatch& match) const;

  // Whether an admission with `match` finds a tail block for its first token, likewise.
  bool HasTailRoom(const PrefixMatch& match) const;

  // Whether it would find its blocks here, had it a slot.
  bool HasBlocksFor(const Sequence& sequence) const;

  // Likewise once `leaving`, which run here, have left and the steps in flight are done.
  bool WillHaveBlocksFor(const Sequence& sequence,
                         std::span<Sequence* const> leaving) const;

  // The running sequence that goes first where a waiting one of `priority` finds no
  // place: the last by RunsBefore, if its priority is worse; else null.
  Sequence* FindWorse(int32_t priority) const;

  // Blocks that come free with the steps in flight.
  int64_t num_deferred_blocks() const { return blocks_->num_deferred(); }

  // Takes a running sequence off: slot and blocks go back.
  void Remove(Sequence* sequence);

  // Checks the answer to the oldest plan, in any order of its slots. kInternal: it does
  // not answer it.
  absl::Status CheckResult(uint64_t epoch, const proto::StepResult& result) const;

  // Takes the answer, after CheckResult: appends sampled tokens to their sequences,
  // registers filled blocks, frees what only this plan named. Tokens of finished
  // sequences are dropped.
  void Accept(const PrefixHash& hash, const proto::StepResult& result,
              std::vector<AcceptedToken>* accepted);

  // Drops everything; running sequences are the caller's to queue again.
  void Reset();

  int dp_rank() const { return dp_rank_; }
  const std::vector<Sequence*>& running() const { return running_; }
  const BlockManager& blocks() const { return blocks_->manager(); }
  BlockManager& mutable_blocks() { return blocks_->mutable_manager(); }
  const std::deque<PlannedRankStep>& in_flight() const { return in_flight_; }
  // Adds what this rank has to the group's.
  void AddTo(SchedulerStats* stats) const;
  // Tokens that running sequences still have to prefill.
  int64_t pending_tokens() const;
  // Whether a running sequence can be planned.
  bool has_work() const;
  absl::Status CheckInvariants() const;

 private:
  DpRank(const SchedulerOptions& options, int dp_rank,
         std::unique_ptr<SequenceBlocks> blocks);

  uint32_t TakeSlot();
  // Names restores of the running sequences that wait for some.
  void NameRestores(bool bounded);
  bool shares_tokens() const { return budget_ > kept_tokens_ && cost_ > kept_cost_; }
  // Plans as many known tokens as the step has left but for `kept_tokens` and
  // `kept_cost`, and the tail blocks.
  void PlanChunk(Sequence* sequence, int64_t kept_tokens, double kept_cost);
  // What a token behind those that are planned costs, in tokens without a context.
  double TokenCost(const Sequence& sequence) const;
  // Orders `running_` so that victims of preemption stand at its end.
  void SortRunning();
  void RecordWork(Sequence* sequence, proto::SlotWork work, int64_t num_tokens);
  // Makes the block and the tail block for position `planned` exist; no plan has named
  // them. False: not in this step.
  bool EnsureBlocks(Sequence* sequence, std::vector<Sequence*>* preempted);
  // How many drafts the work at `planned` may have; makes blocks for them exist likewise.
  int64_t TakeDrafts(Sequence* sequence);
  // Names the blocks after the first `num_named`, and the tail blocks that no plan has.
  void NameBlocks(Sequence* sequence, int64_t num_named);
  // Appends what is still wanted of sampled tokens to the sequence.
  static void TakeSamples(Sequence* sequence, Samples samples,
                          std::vector<AcceptedToken>* accepted);

  const SchedulerOptions options_;
  const int dp_rank_;
  std::unique_ptr<SequenceBlocks> blocks_;
  std::vector<uint32_t> free_slots_;  // a stack
  std::vector<uint32_t>
      pending_releases_;  // slots to name in the plan that is closed next
  std::vector<uint32_t>
      probe_slots_;  // of the plan under construction; released in the one after
  std::vector<Sequence*> running_;
  bool by_runs_before_ = true;  // the order of `running_`; else SortForPreemption's
  std::deque<PlannedRankStep> in_flight_;

  // Of the plan under construction.
  proto::StepPlan* plan_ = nullptr;
  RankStepTotals totals_;
  int64_t budget_ = 0;        // tokens left
  int64_t draft_budget_ = 0;  // of them, for drafts
  // Running prompts without work in the plan, and the one of them that came first, with
  // what is kept for it.
  std::vector<Sequence*> prompts_;
  Sequence* first_prompt_ = nullptr;
  int64_t kept_tokens_ = 0;
  double cost_ = 0;  // left for prompts
  int64_t restores_left_ = 0;
  double kept_cost_ = 0;
};

}  // namespace tessera::coordinator

#endif  // TESSERA_COORDINATOR_SCHEDULER_DP_RANK_H_
