// tessera worker: one rank of a group as a process: joins its job, loads its share,
// serves plans to the coordinator, and ends with its group. A group is never repaired in
// place: whoever started the job starts it again.
#include <iostream>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "cli/cell_options.h"
#include "cli/engram/engram_tables.h"
#include "cli/load_progress.h"
#include "cli/loaded_model.h"
#include "cli/model_options.h"
#include "cli/ranks/process_group_registry.h"
#include "cli/ranks/rank_assembly.h"
#include "cli/ranks/rank_groups.h"
#include "cli/ranks/rank_settings.h"
#include "cli/server_options.h"
#include "cli/signals.h"
#include "cli/subcommand.h"
#include "fmt/format.h"
#include <unistd.h>

#include "common/build_info.h"
#include "common/clock.h"
#include "common/log.h"
#include "common/mutex.h"
#include "common/option_table.h"
#include "common/status.h"
#include "common/status_macros.h"
#include "proto/cluster_client.h"
#include "proto/cluster_member.h"
#include "proto/step_plan.h"
#include "worker/service/rank_thread.h"
#include "worker/service/step_service.h"

namespace tessera::cli {
namespace {

// After the rank has ended, its last reply may still be on the way to the coordinator.
constexpr absl::Duration kGoodbye = absl::Milliseconds(200);
constexpr absl::Duration kPoll = absl::Milliseconds(20);

struct WorkerOptions {
  ModelOptions model;
  CellOptions cell;
  EngramOptions engram;
  LogOptions log;
  std::string listen = "127.0.0.1:0";
  uint64_t epoch = 0;
  absl::Duration step_timeout = absl::Seconds(60);
  absl::Duration start_timeout = absl::Seconds(60);
};

// Of this process's rank: in `job`, or alone where there is none.
absl::StatusOr<RankGroups> ConnectRank(ProcessGroup* job, const GroupShape& shape,
                                       const worker::ProcessRank& own,
                                       const worker::CommOptions& options, Clock* clock) {
  if (job != nullptr) {
    return JoinGroups(*job, shape, own, options, clock);
  }
  if (shape.num_ranks() != 1) {
    return InvalidArgumentF("{} ranks need a job of processes: start it under mpirun",
                            shape.num_ranks());
  }
  TESSERA_ASSIGN_OR_RETURN(std::vector<RankGroups> alone,
                           MakeLocalGroups(shape, nullptr, options, clock));
  return std::move(alone[0]);
}

// Serves as `self`, whose address it fills in, until the rank ends, the coordinator
// refuses it, or a signal. OK only for a signal.
absl::Status ServeRank(const WorkerOptions& options, const proto::ClusterMember& self,
                       const LoadedModel& model, int64_t max_slots, AssembledRank& rank,
                       const SignalWatcher& signals) {
  Clock* const clock = Clock::Real();
  Notification ended;
  TESSERA_ASSIGN_OR_RETURN(
      std::unique_ptr<worker::RankThread> thread,
      worker::RankThread::Create(
          {.name = fmt::format("rank {}", self.rank)},
          [&rank](const proto::StepPlan& plan, proto::LateInputFunction late) {
            return rank.runner->Execute(plan, late);
          },
          [&rank, &ended](const absl::Status& reason) {
            log::Info("worker", "rank ended", {{"reason", reason.ToString()}});
            rank.groups.Abort("the rank ended");
            ended.Notify();
          }));
  const std::unique_ptr<proto::StepExecutor> executor =
      WithReadAhead(std::move(thread), model, rank, max_slots);
  TESSERA_ASSIGN_OR_RETURN(
      const std::unique_ptr<worker::StepServer> server,
      worker::StepServer::Create({.address = options.listen,
                                  .auth_token = options.cell.cluster_token,
                                  .step_timeout = options.step_timeout},
                                 executor.get(), clock));
  proto::ClusterMember member = self;
  member.address = server->address();
  Notification refused;
  TESSERA_ASSIGN_OR_RETURN(
      const std::unique_ptr<proto::ClusterClient> client,
      proto::ClusterClient::Create({.coordinator_address = options.cell.coordinator,
                                    .auth_token = options.cell.cluster_token},
                                   member, [&refused](const absl::Status& status) {
                                     log::Error("worker", "refused by the coordinator",
                                                {{"error", status.ToString()}});
                                     refused.Notify();
                                   }));
  log::Info(
      "worker", "serving",
      {{"rank", self.rank},
       {"address", server->address()},
       {"ranks_per_node", rank.groups.node == nullptr ? 0 : rank.groups.node->size()},
       {"weight_bytes", rank.runner->weight_bytes()},
       {"kv_bytes", rank.runner->kv_bytes()},
       {"isa", rank.backend->isa()}});
  while (!signals.WaitForFirst(kPoll)) {
    if (refused.HasBeenNotified()) {
      return absl::FailedPreconditionError("the coordinator refused this worker");
    }
    if (ended.HasBeenNotified()) {
      clock->Sleep(kGoodbye);
      return absl::AbortedError("the rank's group has ended");
    }
  }
  return absl::OkStatus();
}

absl::Status RunRank(const WorkerOptions& options, const GroupShape& shape,
                     const SignalWatcher& signals) {
  Clock* const clock = Clock::Real();
  std::unique_ptr<ProcessGroup> group;
  if (InProcessGroupJob()) {
    TESSERA_ASSIGN_OR_RETURN(group, JoinProcessGroup(clock));
  }
  TESSERA_ASSIGN_OR_RETURN(const std::unique_ptr<LoadedModel> model,
                           LoadModel(options.model.model, options.model.load));
  TESSERA_ASSIGN_OR_RETURN(
      const RankOptions rank_options,
      RankOptionsOf(options.model, model->config, shape.num_ranks()));
  TESSERA_ASSIGN_OR_RETURN(const HostPosition position, PositionOnHost());
  TESSERA_ASSIGN_OR_RETURN(const ProcessDevices devices,
                           DevicesOfProcess(rank_options, position));
  const worker::ProcessRank own = {
      .devices = devices.devices.get(), .local = devices.local, .epoch = options.epoch};
  TESSERA_ASSIGN_OR_RETURN(
      RankGroups groups, ConnectRank(group.get(), shape, own, rank_options.comm, clock));
  const int index = groups.ep->rank();
  TESSERA_RETURN_IF_ERROR(ReadWeights(*model, shape, index, /*quiet=*/index != 0, clock));
  TESSERA_ASSIGN_OR_RETURN(
      std::unique_ptr<engram_store::EngramSource> engram,
      OpenEngramSource(*model, options.engram, options.cell.cluster_token,
                       clock->Now() + options.start_timeout, clock));
  TESSERA_ASSIGN_OR_RETURN(AssembledRank rank,
                           AssembleRank(*model, rank_options, own, std::move(groups),
                                        std::move(engram), clock));
  const proto::ClusterMember self = {
      .role = proto::ClusterRole::kWorker,
      .rank = static_cast<uint32_t>(index),
      .epoch = options.epoch,
      .address = {},
      .build_version = std::string(Version()),
      .numerics_id = NumericsIdOf(rank_options),
      .model_digest = model->checkpoint->digest(),
      .table_digests = {},
      .settings = RankSettingsOf(*model, rank_options, shape)};
  const absl::Status status =
      ServeRank(options, self, *model, rank_options.runner.max_slots, rank, signals);
  if (group != nullptr) {
    // MPI may still hold buffers of a call that was cut short: no destructor may run, and
    // none may wait for peers that are gone.
    ExitAfterGroupFault(status.ok() ? 0 : 1);
  }
  return status;
}

}  // namespace

absl::Status RunWorker(Arguments arguments) {
  WorkerOptions options;
  OptionTable table(
      "worker",
      "Runs one rank of a group. Start all ranks as one MPI job; each registers "
      "with the coordinator and serves its plans.");
  AddModelOptions(&table, &options.model);
  AddCellOptions(&table, &options.cell);
  AddEngramOptions(&table, &options.engram);
  table.Heading("Worker");
  table.Add("listen", &options.listen, "address for plans, on loopback; port 0: any");
  table.Add("epoch", &options.epoch, "epoch that the job was started for; 0: any");
  table.Add("step-timeout", &options.step_timeout, "a step that takes longer has failed");
  table.Add("start-timeout", &options.start_timeout,
            "the Engram shards must answer within");
  AddLogOptions(&table, &options.log);
  TESSERA_ASSIGN_OR_RETURN(const bool go_on, ParseOptions(&table, arguments));
  if (!go_on) {
    return absl::OkStatus();
  }
  ConfigureLogs(options.log);
  if (options.model.model.empty() || options.cell.coordinator.empty() ||
      options.cell.cluster_token.empty()) {
    return InvalidArgumentF(
        "a worker needs a model, --coordinator and TESSERA_CLUSTER_TOKEN");
  }
  TESSERA_ASSIGN_OR_RETURN(const GroupShape shape, ShapeOf(options.model));
  TESSERA_RETURN_IF_ERROR(PlaceRank(&options.model));
  const SignalWatcher* const signals = SignalWatcher::Start();
  return RunRank(options, shape, *signals);
}

}  // namespace tessera::cli
