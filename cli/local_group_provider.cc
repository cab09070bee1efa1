#include "cli/local_group_provider.h"

#include <cstddef>
#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "cli/engram/engram_tables.h"
#include "cli/ranks/rank_assembly.h"
#include "fmt/format.h"

#include "common/log.h"
#include "common/status_macros.h"
#include "coordinator/service/rank_group.h"
#include "proto/step_executor.h"
#include "proto/step_plan.h"
#include "worker/service/rank_thread.h"

namespace tessera::cli {
namespace {

using Ranks = std::vector<AssembledRank>;

// One rank's thread, and a share of the group's parts, which all ranks may touch until
// the last thread has ended.
class LocalRank final : public proto::StepExecutor {
 public:
  LocalRank(std::shared_ptr<Ranks> ranks, std::unique_ptr<proto::StepExecutor> executor)
      : ranks_(std::move(ranks)), executor_(std::move(executor)) {}

  absl::Status Submit(proto::StepPlan plan) override {
    return executor_->Submit(std::move(plan));
  }
  absl::Status SubmitLate(proto::LateInput late) override {
    return executor_->SubmitLate(std::move(late));
  }
  absl::StatusOr<proto::StepResult> Wait(absl::Time deadline) override {
    return executor_->Wait(deadline);
  }
  void Abort(absl::Status reason) override { executor_->Abort(std::move(reason)); }

 private:
  std::shared_ptr<Ranks> ranks_;
  std::unique_ptr<proto::StepExecutor> executor_;  // destroyed first
};

}  // namespace

LocalGroupProvider::LocalGroupProvider(const LoadedModel& model, const GroupShape& shape,
                                       const RankOptions& options,
                                       EngramSourceFactory engram, Clock* clock)
    : model_(model),
      shape_(shape),
      options_(options),
      engram_(std::move(engram)),
      clock_(clock) {}

absl::StatusOr<coordinator::RankExecutors> LocalGroupProvider::Form(uint64_t epoch) {
  auto ranks = std::make_shared<Ranks>();
  TESSERA_ASSIGN_OR_RETURN(*ranks,
                           AssembleLocalGroup(model_, shape_, options_, engram_, clock_));
  coordinator::RankExecutors executors;
  for (size_t i = 0; i < ranks->size(); ++i) {
    AssembledRank& rank = (*ranks)[i];
    TESSERA_ASSIGN_OR_RETURN(
        std::unique_ptr<worker::RankThread> thread,
        worker::RankThread::Create(
            {.name = fmt::format("rank {}", i)},
            [&rank](const proto::StepPlan& plan, proto::LateInputFunction late) {
              return rank.runner->Execute(plan, late);
            },
            [&rank](const absl::Status&) {
              rank.groups.Abort("the group was torn down");
            }));
    executors.push_back(std::make_shared<LocalRank>(
        ranks,
        WithReadAhead(std::move(thread), model_, rank, options_.runner.max_slots)));
  }
  log::Info("group", "formed in this process",
            {{"epoch", epoch},
             {"tp", shape_.tp},
             {"dp", shape_.dp},
             {"weight_bytes", ranks->front().runner->weight_bytes()},
             {"kv_bytes", ranks->front().runner->kv_bytes()},
             {"isa", ranks->front().backend->isa()}});
  return executors;
}

void LocalGroupProvider::OnGroupFailed(uint64_t epoch, const absl::Status& reason) {
  log::Error("group", "failed", {{"epoch", epoch}, {"error", reason.ToString()}});
}

}  // namespace tessera::cli
