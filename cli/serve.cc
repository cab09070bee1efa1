// tessera serve: the whole of Tessera on one machine. By default in one process, with
// threads as ranks; with
// --workers N as N worker processes, with --engram-shards S as S shard processes, which
// it starts, watches and stops.
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "cli/api_server.h"
#include "cli/cell_options.h"
#include "cli/engram/engram_tables.h"
#include "cli/load_progress.h"
#include "cli/loaded_model.h"
#include "cli/local_group_provider.h"
#include "cli/model_options.h"
#include "cli/process_cell.h"
#include "cli/ranks/process_group_registry.h"
#include "cli/ranks/rank_assembly.h"
#include "cli/server_options.h"
#include "cli/signals.h"
#include "cli/subcommand.h"
#include "fmt/format.h"
#include <unistd.h>

#include "common/clock.h"
#include "common/option_table.h"
#include "common/option_value.h"
#include "common/status.h"
#include "common/status_macros.h"

namespace tessera::cli {
namespace {

absl::Status ServeInProcess(const ServerOptions& options, const GroupShape& shape,
                            const SignalWatcher& signals) {
  Clock* const clock = Clock::Real();
  TESSERA_ASSIGN_OR_RETURN(const std::unique_ptr<LoadedModel> model,
                           LoadModel(options.model.model, options.model.load));
  TESSERA_ASSIGN_OR_RETURN(
      const RankOptions rank,
      RankOptionsOf(options.model, model->config, shape.num_ranks()));
  TESSERA_RETURN_IF_ERROR(CheckBackend(rank, model->config));
  TESSERA_RETURN_IF_ERROR(
      ReadWeights(*model, shape, std::nullopt, /*quiet=*/false, clock));
  TESSERA_ASSIGN_OR_RETURN(EngramSourceFactory engram,
                           OwnEngram(*model, options.engram_tables, clock));
  LocalGroupProvider provider(*model, shape, rank, std::move(engram), clock);
  TESSERA_ASSIGN_OR_RETURN(
      const std::unique_ptr<ApiServer> server,
      ApiServer::Create(options, *model, rank, shape, &provider, clock));
  return server->RunUntilSignal(signals);
}

// The arguments of one worker or shard: what the user typed for the model, less what the
// cell decides.
std::vector<std::string> ChildArguments(const std::string& subcommand,
                                        const ServerOptions& options,
                                        const LogOptions& log_options) {
  std::vector<std::string> words = {
      SelfPath(), subcommand, "--model=" + options.model.model,
      "--log-level=" + log_options.level,
      "--log-format=" + (log_options.format == "auto" && ::isatty(STDERR_FILENO) != 0
                             ? std::string("text")
                             : log_options.format)};
  for (std::string& word : LoadArguments(options.model.load)) {
    words.push_back(std::move(word));
  }
  return words;
}

LaunchPlan MakeLaunchPlan(const ServerOptions& options, const LogOptions& log_options,
                          const RankOptions& rank) {
  LaunchPlan plan;
  plan.engram_arguments = ChildArguments("engram", options, log_options);
  plan.num_shards = options.engram_shards;
  plan.num_replicas = options.engram_replicas;
  plan.engram_source = options.engram_source;
  plan.worker_arguments = ChildArguments("worker", options, log_options);
  const ModelOptions& model = options.model;
  for (const std::string& word :
       {fmt::format("--workers={}", model.workers), fmt::format("--comm={}", model.comm),
        fmt::format("--tensor-parallel-size={}", model.tensor_parallel_size),
        fmt::format("--ranks-per-node={}", model.ranks_per_node),
        fmt::format("--backend={}", model.backend),
        fmt::format("--dtype={}", model.dtype),
        fmt::format("--kv-cache-dtype={}", model.kv_cache_dtype),
        fmt::format("--cpu-isa={}", model.cpu_isa),
        fmt::format("--numerics={}", model.numerics),
        // Placed ranks count the CPUs that they are left with.
        fmt::format("--threads-per-rank={}",
                    model.numa.asks() ? model.threads_per_rank : rank.num_threads),
        fmt::format("--numa={}", model.numa.mode),
        std::string(model.numa.pin_threads ? "--pin-threads" : "--no-pin-threads"),
        fmt::format("--max-model-len={}", rank.runner.max_model_len),
        fmt::format("--max-num-seqs={}", rank.runner.max_slots),
        fmt::format("--max-num-batched-tokens={}", rank.runner.max_tokens),
        fmt::format("--block-size={}", rank.runner.block_size),
        fmt::format("--num-kv-blocks={}", rank.runner.num_blocks),
        fmt::format("--num-tail-blocks={}", rank.runner.num_tail_blocks),
        fmt::format("--kv-host-gib={}", model.kv_host_gib),
        fmt::format("--num-host-blocks={}", rank.runner.num_host_blocks),
        fmt::format("--prefill-ranks={}", rank.prefill_ranks),
        fmt::format("--kv-transfer-mib={}", model.kv_transfer_mib),
        fmt::format("--speculative-tokens={}", rank.runner.num_speculative_tokens),
        fmt::format("--collective-timeout={}", ShowOption(model.collective_timeout)),
        fmt::format("--engram-timeout={}", ShowOption(model.engram_timeout)),
        fmt::format("--step-timeout={}", ShowOption(options.step_timeout)),
        fmt::format("--start-timeout={}", ShowOption(options.form_timeout))}) {
    plan.worker_arguments.push_back(word);
  }
  if (!model.kv_disk_dir.empty()) {
    plan.worker_arguments.push_back(fmt::format("--kv-disk-dir={}", model.kv_disk_dir));
    plan.worker_arguments.push_back(fmt::format("--kv-disk-gib={}", model.kv_disk_gib));
    plan.worker_arguments.push_back(
        fmt::format("--kv-disk-staging-mib={}", model.kv_disk_staging_mib));
  }
  // Whoever holds the tables.
  std::vector<std::string>& holder =
      options.engram_shards > 0 ? plan.engram_arguments : plan.worker_arguments;
  for (std::string& word : TableArguments(options.engram_tables)) {
    holder.push_back(std::move(word));
  }
  return plan;
}

absl::Status ServeProcesses(const ServerOptions& options, const LogOptions& log_options,
                            const GroupShape& shape, const SignalWatcher& signals) {
  Clock* const clock = Clock::Real();
  TESSERA_ASSIGN_OR_RETURN(const std::unique_ptr<LoadedModel> model,
                           LoadModel(options.model.model, options.model.load));
  TESSERA_ASSIGN_OR_RETURN(
      const RankOptions rank,
      RankOptionsOf(options.model, model->config, shape.num_ranks()));
  TESSERA_RETURN_IF_ERROR(CheckBackend(rank, model->config));
  TESSERA_RETURN_IF_ERROR(
      LaunchCommand(shape.num_ranks(), kMemoryDirectory, {}).status());
  if (options.engram_shards > 0 && !model->hash.has_value()) {
    return InvalidArgumentF("--engram-shards {}: {} has no Engram tables",
                            options.engram_shards, options.model.model);
  }
  ProcessCellOptions cell_options = CellOptionsOf(options, *model, rank, shape);
  cell_options.token = MakeClusterToken();
  cell_options.launch = MakeLaunchPlan(options, log_options, rank);
  TESSERA_ASSIGN_OR_RETURN(const std::unique_ptr<ProcessCell> cell,
                           ProcessCell::Create(cell_options, clock));
  TESSERA_ASSIGN_OR_RETURN(
      const std::unique_ptr<ApiServer> server,
      ApiServer::Create(options, *model, rank, shape, cell.get(), clock));
  const absl::Status status = server->RunUntilSignal(signals);
  cell->Stop();
  return status;
}

}  // namespace

absl::Status RunServe(Arguments arguments) {
  ServerOptions options;
  LogOptions log_options;
  OptionTable table("serve", "Serves a model on this machine: API, ranks and Engram.");
  options.model.model = "models/demo";
  AddServerOptions(&table, &options);
  AddLogOptions(&table, &log_options);
  TESSERA_ASSIGN_OR_RETURN(const bool go_on, ParseOptions(&table, arguments));
  if (!go_on) {
    return absl::OkStatus();
  }
  ConfigureLogs(log_options);
  options.config_in_force = table.PrintConfig();
  TESSERA_RETURN_IF_ERROR(CheckServerOptions(options));
  TESSERA_ASSIGN_OR_RETURN(const GroupShape shape, ShapeOf(options.model));
  if (options.model.workers == 0) {
    TESSERA_RETURN_IF_ERROR(PlaceRank(&options.model));
  } else {
    TESSERA_RETURN_IF_ERROR(CheckRankPlacement(options.model, shape.num_ranks()));
  }
  const SignalWatcher* const signals =
      SignalWatcher::Start(SignalWatcher::Hangup::kReloads);
  if (options.model.workers == 0 && options.engram_shards > 0) {
    return InvalidArgumentF("--engram-shards {} needs --workers and --comm mpi",
                            options.engram_shards);
  }
  if (options.engram_shards > 0 && options.engram_tables.on_disk() &&
      options.engram_source == "shm") {
    return InvalidArgumentF(
        "--engram-table-folder {}: shards on disk cannot be mapped; expected "
        "--engram-source remote",
        options.engram_tables.folder);
  }
  return options.model.workers == 0
             ? ServeInProcess(options, shape, *signals)
             : ServeProcesses(options, log_options, shape, *signals);
}

}  // namespace tessera::cli
