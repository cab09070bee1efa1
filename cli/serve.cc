// tessera serve: the whole of Tessera on one machine. By default in one process, with
// threads as ranks; with
// --workers N as N worker processes, with --engram-shards S as S shard processes, which
// it starts, watches and stops.
#include <memory>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "cli/api_server.h"
#include "cli/load_progress.h"
#include "cli/loaded_model.h"
#include "cli/local_group_provider.h"
#include "cli/model_options.h"
#include "cli/rank_assembly.h"
#include "cli/server_options.h"
#include "cli/signals.h"
#include "cli/subcommand.h"

#include "common/clock.h"
#include "common/option_table.h"
#include "common/status_macros.h"

namespace tessera::cli {
namespace {

absl::Status ServeInProcess(const ServerOptions& options, const GroupShape& shape,
                            const SignalWatcher& signals) {
  Clock* const clock = Clock::Real();
  TESSERA_ASSIGN_OR_RETURN(const std::unique_ptr<LoadedModel> model,
                           LoadModel(options.model.model));
  TESSERA_ASSIGN_OR_RETURN(
      const RankOptions rank,
      RankOptionsOf(options.model, model->config, shape.num_ranks()));
  ReadWeights(*model->checkpoint, clock);
  TESSERA_ASSIGN_OR_RETURN(EngramSourceFactory engram, ResidentEngram(*model, clock));
  LocalGroupProvider provider(*model, shape, rank, std::move(engram), clock);
  TESSERA_ASSIGN_OR_RETURN(
      const std::unique_ptr<ApiServer> server,
      ApiServer::Create(options, *model, rank, shape, &provider, clock));
  server->RunUntilSignal(signals);
  return absl::OkStatus();
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
  const SignalWatcher* const signals = SignalWatcher::Start();
  TESSERA_RETURN_IF_ERROR(CheckExposure(options));
  TESSERA_ASSIGN_OR_RETURN(const GroupShape shape, ShapeOf(options.model));
  return ServeInProcess(options, shape, *signals);
}

}  // namespace tessera::cli
