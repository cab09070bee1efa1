#include "cli/process_cell.h"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "cli/cell_options.h"
#include "cli/child_process.h"
#include "cli/ranks/process_group_registry.h"
#include "cli/ranks/rank_settings.h"
#include "fmt/format.h"
#include <signal.h>

#include "common/build_info.h"
#include "common/clock.h"
#include "common/log.h"
#include "common/mutex.h"
#include "common/status.h"
#include "common/status_macros.h"
#include "coordinator/cluster/cluster_service.h"
#include "coordinator/cluster/cluster_state.h"
#include "coordinator/cluster/step_client.h"
#include "coordinator/service/rank_group.h"
#include "proto/cluster_member.h"
#include "proto/step_executor.h"

namespace tessera::cli {
namespace {

constexpr absl::Duration kPoll = absl::Milliseconds(5);
constexpr absl::Duration kWatchPeriod = absl::Milliseconds(20);
constexpr const char* kTokenVariable = "TESSERA_CLUSTER_TOKEN";

}  // namespace

ProcessCellOptions CellOptionsOf(const ServerOptions& options, const LoadedModel& model,
                                 const RankOptions& rank, const GroupShape& shape) {
  ProcessCellOptions cell;
  cell.num_ranks = shape.num_ranks();
  cell.form_timeout = options.form_timeout;
  cell.cluster.heartbeat_period = options.heartbeat_interval;
  cell.cluster.suspect_after = options.heartbeat_timeout / 2;
  cell.cluster.dead_after = options.heartbeat_timeout;
  cell.cluster.build_version = Version();
  cell.cluster.numerics_id = NumericsIdOf(rank);
  cell.cluster.model_digest = model.checkpoint->digest();
  cell.cluster.settings = RankSettingsOf(model, rank, shape);
  return cell;
}

ProcessCell::ProcessCell(const ProcessCellOptions& options, Clock* clock)
    : options_(options), clock_(clock), state_(options.cluster, clock) {
  if (options_.launch.has_value()) {
    shards_.resize(static_cast<size_t>(options_.launch->num_shards) *
                   static_cast<size_t>(options_.launch->num_replicas));
  }
}

absl::StatusOr<std::unique_ptr<ProcessCell>> ProcessCell::Create(
    const ProcessCellOptions& options, Clock* clock) {
  std::unique_ptr<ProcessCell> cell(new ProcessCell(options, clock));
  if (options.launch.has_value()) {
    TESSERA_ASSIGN_OR_RETURN(cell->memory_, ScratchDirectory::Create(kMemoryDirectory));
  }
  TESSERA_ASSIGN_OR_RETURN(
      cell->server_,
      coordinator::ClusterServer::Create(
          {.address = options.address, .auth_token = options.token}, &cell->state_));
  cell->watcher_ = std::thread([raw = cell.get()] { raw->Watch(); });
  return cell;
}

ProcessCell::~ProcessCell() {
  Stop();
  if (watcher_.joinable()) {
    watcher_.join();
  }
}

void ProcessCell::Stop() {
  cancelled_ = true;
  stopping_ = true;
  MutexLock lock(&mutex_);
  executors_.clear();
  if (job_ != nullptr) {
    job_->Ask();
  }
  for (Shard& shard : shards_) {
    if (shard.process != nullptr) {
      shard.process->Ask();
    }
  }
  if (job_ != nullptr) {
    job_->Stop(options_.stop_grace);
    job_.reset();
    memory_->Clear();
  }
  for (Shard& shard : shards_) {
    if (shard.process != nullptr) {
      // It is stateless: nothing is lost if it has not ended by now.
      shard.process->Stop(absl::ZeroDuration());
      shard.process.reset();
    }
  }
}

absl::Status ProcessCell::StartShard(size_t index) {
  if (cancelled_) {
    return absl::CancelledError("stopping");
  }
  const LaunchPlan& plan = *options_.launch;
  const size_t replicas = static_cast<size_t>(plan.num_replicas);
  ChildOptions child;
  child.name =
      fmt::format("engram shard {} replica {}", index / replicas, index % replicas);
  child.command = plan.engram_arguments;
  for (const std::string& word : {fmt::format("--shard={}", index / replicas),
                                  fmt::format("--num-shards={}", plan.num_shards),
                                  fmt::format("--replica={}", index % replicas),
                                  fmt::format("--num-replicas={}", plan.num_replicas),
                                  fmt::format("--coordinator={}", server_->address())}) {
    child.command.push_back(word);
  }
  child.environment = {{kTokenVariable, options_.token}};
  TESSERA_ASSIGN_OR_RETURN(shards_[index].process, ChildProcess::Start(child, clock_));
  log::Info("cell", "started",
            {{"process", child.name}, {"pid", shards_[index].process->pid()}});
  return absl::OkStatus();
}

std::string ProcessCell::ShardAddress(size_t index) const {
  for (const coordinator::MemberView& member : state_.View()->members) {
    if (member.member.role == proto::ClusterRole::kEngram &&
        member.member.rank == index && member.liveness != coordinator::Liveness::kDead) {
      return member.member.address;
    }
  }
  return "";
}

void ProcessCell::ForgetShard(size_t index) {
  for (const coordinator::MemberView& member : state_.View()->members) {
    if (member.member.role == proto::ClusterRole::kEngram &&
        member.member.rank == index) {
      state_.MarkDead(member.member_id);
    }
  }
}

absl::Status ProcessCell::EnsureShards(absl::Time deadline) {
  MutexLock lock(&mutex_);
  for (size_t i = 0; i < shards_.size(); ++i) {
    Shard& shard = shards_[i];
    // One that hangs runs and is silent: every group that reaches for it would fail.
    const bool silent = !shard.address.empty() && ShardAddress(i).empty();
    if (shard.process == nullptr || silent || !shard.process->running()) {
      shard.process.reset();
      ForgetShard(i);
      TESSERA_RETURN_IF_ERROR(StartShard(i));
    }
  }
  for (size_t i = 0; i < shards_.size(); ++i) {
    while ((shards_[i].address = ShardAddress(i)).empty()) {
      if (cancelled_) {
        return absl::CancelledError("stopping");
      }
      if (!shards_[i].process->running()) {
        return UnavailableF("{} ended with {}", shards_[i].process->name(),
                            *shards_[i].process->outcome());
      }
      if (clock_->Now() >= deadline) {
        shards_[i].process->Stop(absl::ZeroDuration());
        return DeadlineExceededF("{} has not registered", shards_[i].process->name());
      }
      clock_->Sleep(kPoll);
    }
  }
  return absl::OkStatus();
}

absl::Status ProcessCell::StartJob(uint64_t epoch) {
  const LaunchPlan& plan = *options_.launch;
  std::vector<std::string> program = plan.worker_arguments;
  program.push_back(fmt::format("--coordinator={}", server_->address()));
  program.push_back(fmt::format("--epoch={}", epoch));
  MutexLock lock(&mutex_);
  if (!shards_.empty()) {
    program.push_back(fmt::format("--engram-source={}", plan.engram_source));
    program.emplace_back("--engram-shard-addresses");
    const size_t replicas = static_cast<size_t>(plan.num_replicas);
    for (size_t shard = 0; shard * replicas < shards_.size(); ++shard) {
      std::string addresses;
      for (size_t replica = 0; replica < replicas; ++replica) {
        addresses +=
            (replica == 0 ? "" : "|") + shards_[shard * replicas + replica].address;
      }
      program.push_back(addresses);
    }
  }
  if (cancelled_) {
    return absl::CancelledError("stopping");
  }
  // A job of an earlier epoch is of no use, whatever state it is in.
  if (job_ != nullptr) {
    job_->Stop(options_.stop_grace);
    memory_->Clear();
  }
  ChildOptions child;
  child.name = fmt::format("worker job of epoch {}", epoch);
  // A launcher that is killed leaves its ranks behind.
  child.death_signal = SIGTERM;
  TESSERA_ASSIGN_OR_RETURN(child.command,
                           LaunchCommand(options_.num_ranks, memory_->path(), program));
  child.environment = {{kTokenVariable, options_.token}};
  TESSERA_ASSIGN_OR_RETURN(job_, ChildProcess::Start(child, clock_));
  log::Info("cell", "started", {{"process", child.name}, {"pid", job_->pid()}});
  return absl::OkStatus();
}

absl::Status ProcessCell::CheckJob() {
  MutexLock lock(&mutex_);
  if (job_ != nullptr && !job_->running()) {
    return UnavailableF("{} ended with {}", job_->name(), *job_->outcome());
  }
  // Workers would ask a shard that hangs until their own deadline; the next attempt
  // replaces it.
  for (size_t i = 0; i < shards_.size(); ++i) {
    if (ShardAddress(i).empty()) {
      return UnavailableF("engram process {} gives no sign of life", i);
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<std::vector<std::string>> ProcessCell::AwaitWorkers(uint64_t epoch,
                                                                   absl::Time deadline) {
  const auto num_ranks = static_cast<size_t>(options_.num_ranks);
  while (true) {
    std::vector<std::string> addresses(num_ranks);
    std::vector<uint64_t> members;
    for (const coordinator::MemberView& member : state_.View()->members) {
      if (member.member.role == proto::ClusterRole::kWorker &&
          member.liveness != coordinator::Liveness::kDead &&
          member.member.rank < num_ranks) {
        addresses[member.member.rank] = member.member.address;
        members.push_back(member.member_id);
      }
    }
    if (members.size() == num_ranks) {
      MutexLock lock(&mutex_);
      group_members_ = members;
      return addresses;
    }
    TESSERA_RETURN_IF_ERROR(CheckJob());
    if (cancelled_) {
      return absl::CancelledError("stopping");
    }
    if (clock_->Now() >= deadline) {
      return DeadlineExceededF("epoch {}: {} of {} workers have registered", epoch,
                               members.size(), num_ranks);
    }
    clock_->Sleep(kPoll);
  }
}

absl::StatusOr<coordinator::RankExecutors> ProcessCell::Form(uint64_t epoch) {
  const absl::Time deadline = clock_->Now() + options_.form_timeout;
  if (options_.launch.has_value()) {
    TESSERA_RETURN_IF_ERROR(EnsureShards(deadline));
    TESSERA_RETURN_IF_ERROR(state_.StartEpoch(epoch));
    TESSERA_RETURN_IF_ERROR(StartJob(epoch));
  }
  TESSERA_ASSIGN_OR_RETURN(const std::vector<std::string> addresses,
                           AwaitWorkers(epoch, deadline));
  coordinator::RankExecutors executors;
  for (const std::string& address : addresses) {
    TESSERA_ASSIGN_OR_RETURN(
        std::unique_ptr<proto::StepExecutor> executor,
        coordinator::ConnectStepExecutor(
            {.address = address, .auth_token = options_.token}, clock_));
    executors.push_back(std::move(executor));
  }
  log::Info("cell", "formed a group of processes",
            {{"epoch", epoch}, {"ranks", options_.num_ranks}});
  MutexLock lock(&mutex_);
  executors_ = executors;
  fault_ = absl::OkStatus();
  return executors;
}

absl::Status ProcessCell::CheckGroup(uint64_t) {
  MutexLock lock(&mutex_);
  return fault_;
}

void ProcessCell::OnGroupFailed(uint64_t epoch, const absl::Status& reason) {
  log::Error("cell", "the group failed",
             {{"epoch", epoch}, {"error", reason.ToString()}});
  std::vector<uint64_t> members;
  {
    MutexLock lock(&mutex_);
    executors_.clear();
    members = std::move(group_members_);
    group_members_.clear();
  }
  // Their processes end with the group; only newcomers may form the next.
  for (const uint64_t member : members) {
    state_.MarkDead(member);
  }
}

bool ProcessCell::ShardHasReplica(size_t shard) {
  const auto replicas = static_cast<size_t>(options_.launch->num_replicas);
  for (size_t i = shard * replicas; i < (shard + 1) * replicas; ++i) {
    if (shards_[i].process != nullptr && shards_[i].process->running()) {
      return true;
    }
  }
  return false;
}

std::vector<coordinator::MemberReport> ProcessCell::Members() const {
  std::vector<coordinator::MemberReport> reports;
  for (const coordinator::MemberView& member : state_.Members()) {
    const coordinator::Liveness liveness = member.liveness;
    reports.push_back(
        {.role = member.member.role == proto::ClusterRole::kWorker ? "worker" : "engram",
         .rank = member.member.rank,
         .address = member.member.address,
         .liveness = liveness == coordinator::Liveness::kAlive     ? "alive"
                     : liveness == coordinator::Liveness::kSuspect ? "suspect"
                                                                   : "dead",
         .last_heartbeat = member.last_heartbeat});
  }
  return reports;
}

absl::Status ProcessCell::FindFault() {
  state_.Sweep();
  const auto view = state_.View();
  MutexLock lock(&mutex_);
  if (executors_.empty()) {
    return absl::OkStatus();
  }
  if (job_ != nullptr && !job_->running()) {
    return UnavailableF("{} ended with {}", job_->name(), *job_->outcome());
  }
  for (const coordinator::MemberView& member : view->members) {
    if (member.liveness == coordinator::Liveness::kDead &&
        std::find(group_members_.begin(), group_members_.end(), member.member_id) !=
            group_members_.end()) {
      return UnavailableF("worker rank {} gives no sign of life", member.member.rank);
    }
  }
  if (!options_.launch.has_value()) {
    return absl::OkStatus();
  }
  const auto replicas = static_cast<size_t>(options_.launch->num_replicas);
  for (size_t i = 0; i < shards_.size(); ++i) {
    if (shards_[i].process == nullptr || shards_[i].process->running()) {
      continue;
    }
    const std::string what = fmt::format("{} ended with {}", shards_[i].process->name(),
                                         *shards_[i].process->outcome());
    if (!ShardHasReplica(i / replicas)) {
      return UnavailableF("{} and has no other replica", what);
    }
    // The group goes on with the other replica; the next group gets this one back.
    log::Warning("cell", "a replica is gone", {{"what", what}});
    shards_[i].process.reset();
  }
  return absl::OkStatus();
}

void ProcessCell::Watch() {
  while (!stopping_) {
    const absl::Status fault = FindFault();
    if (!fault.ok()) {
      coordinator::RankExecutors executors;
      {
        MutexLock lock(&mutex_);
        executors = std::move(executors_);
        executors_.clear();
        fault_ = fault;
      }
      for (const std::shared_ptr<proto::StepExecutor>& executor : executors) {
        executor->Abort(fault);
      }
    }
    clock_->Sleep(kWatchPeriod);
  }
}

}  // namespace tessera::cli
