// RankGroup: the executors of one group in one epoch: hands a planned step to every rank
// and collects the results. GroupProvider makes such groups.
#ifndef TESSERA_COORDINATOR_SERVICE_RANK_GROUP_H_
#define TESSERA_COORDINATOR_SERVICE_RANK_GROUP_H_

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"

#include "coordinator/requests/engine_operations.h"
#include "coordinator/scheduler/scheduler.h"
#include "proto/step_executor.h"

namespace tessera::coordinator {

// One executor per rank: rank = dp_rank * tp + tp_rank.
using RankExecutors = std::vector<std::shared_ptr<proto::StepExecutor>>;

inline constexpr absl::Duration kGroupCheckPeriod = absl::Milliseconds(50);

// Forms groups of ranks. Implemented by whoever starts or finds the workers.
class GroupProvider {
 public:
  virtual ~GroupProvider() = default;

  // Executors of all ranks, ready to run step 1 of `epoch`. May block; called by one
  // thread at a time, never while a group of an earlier epoch is in use. Any error is
  // retried with a growing pause.
  virtual absl::StatusOr<RankExecutors> Form(uint64_t epoch) = 0;

  // The group of `epoch` is over and was aborted. Called from the engine's thread; must
  // not block.
  virtual void OnGroupFailed(uint64_t epoch, const absl::Status& reason) = 0;

  // What speaks against the group of `epoch` beside its steps, e.g. a process that ended.
  // Asked in every turn of the engine and at least every kGroupCheckPeriod while it is
  // idle; must not block.
  virtual absl::Status CheckGroup(uint64_t /*epoch*/) { return absl::OkStatus(); }

  // The processes that registered, whatever their state. Any thread.
  virtual std::vector<MemberReport> Members() const { return {}; }

  // Makes a Form in progress return soon; the engine has stopped, no group is in use, and
  // Form's thread ends next. Any thread.
  virtual void CancelForm() {}
};

// External synchronisation.
class RankGroup {
 public:
  struct StepOutcome {
    // Of TP rank 0, one per DP rank; what they say of disk copies is that of all of its
    // TP ranks.
    std::vector<proto::StepResult> results;
    std::vector<proto::StepCounters> counters;  // one per rank
  };

  // kInvalidArgument: not dp * tp executors, or a null one.
  static absl::StatusOr<std::unique_ptr<RankGroup>> Create(RankExecutors executors,
                                                           int64_t num_dp_ranks,
                                                           int64_t tp);

  // Hands plan i to all TP ranks of DP rank i. On an error the epoch is over.
  absl::Status Submit(PlannedStep step);

  // Hands masks[i] of a step in flight to all TP ranks of DP rank i; those without masked
  // work are skipped. On an error the epoch is over.
  absl::Status SubmitLate(uint64_t epoch, uint64_t step,
                          std::vector<std::vector<proto::TokenMask>> masks);

  // Results of the oldest step in flight. Errors name the rank; after one the epoch is
  // over.
  absl::StatusOr<StepOutcome> Wait(absl::Time deadline);

  // Tears all ranks down.
  void Abort(const absl::Status& reason);

 private:
  RankGroup(RankExecutors executors, int64_t tp)
      : executors_(std::move(executors)), tp_(tp) {}

  RankExecutors executors_;
  int64_t tp_;
};

}  // namespace tessera::coordinator

#endif  // TESSERA_COORDINATOR_SERVICE_RANK_GROUP_H_
