// tessera coordinator: the API and every decision, for workers that somebody else starts
// (mpirun, Kubernetes). It keeps soft state only: workers register again after a restart.
#include <memory>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "cli/api_server.h"
#include "cli/cell_options.h"
#include "cli/loaded_model.h"
#include "cli/model_options.h"
#include "cli/process_cell.h"
#include "cli/ranks/rank_assembly.h"
#include "cli/server_options.h"
#include "cli/signals.h"
#include "cli/subcommand.h"

#include "common/build_info.h"
#include "common/clock.h"
#include "common/log.h"
#include "common/option_table.h"
#include "common/status.h"
#include "common/status_macros.h"

namespace tessera::cli {
namespace {

struct CoordinatorOptions {
  ServerOptions server;
  LogOptions log;
  std::string cluster_listen = "127.0.0.1:8003";
  std::string cluster_token;
};

absl::Status Coordinate(const CoordinatorOptions& options, const SignalWatcher& signals) {
  Clock* const clock = Clock::Real();
  TESSERA_ASSIGN_OR_RETURN(const GroupShape shape, ShapeOf(options.server.model));
  TESSERA_ASSIGN_OR_RETURN(
      const std::unique_ptr<LoadedModel> model,
      LoadModel(options.server.model.model, options.server.model.load));
  TESSERA_ASSIGN_OR_RETURN(
      const RankOptions rank,
      RankOptionsOf(options.server.model, model->config, shape.num_ranks()));
  ProcessCellOptions cell_options = CellOptionsOf(options.server, *model, rank, shape);
  cell_options.token = options.cluster_token;
  cell_options.address = options.cluster_listen;
  TESSERA_ASSIGN_OR_RETURN(const std::unique_ptr<ProcessCell> cell,
                           ProcessCell::Create(cell_options, clock));
  log::Info("coordinator", "waiting for workers",
            {{"cluster", cell->address()}, {"ranks", shape.num_ranks()}});
  TESSERA_ASSIGN_OR_RETURN(
      const std::unique_ptr<ApiServer> server,
      ApiServer::Create(options.server, *model, rank, shape, cell.get(), clock));
  return server->RunUntilSignal(signals);
}

}  // namespace

absl::Status RunCoordinator(Arguments arguments) {
  CoordinatorOptions options;
  OptionTable table(
      "coordinator",
      "Serves the API for worker processes that register with it. --workers is "
      "how many ranks form a group.");
  options.server.model.workers = 1;
  options.server.model.comm = "mpi";
  AddServerOptions(&table, &options.server);
  table.Heading("Cell");
  table.Add("cluster-listen", &options.cluster_listen,
            "address where workers and shards register, on loopback");
  table
      .Add("cluster-token", &options.cluster_token,
           "secret that the cell's processes share; prefer TESSERA_CLUSTER_TOKEN")
      .Secret();
  AddLogOptions(&table, &options.log);
  TESSERA_ASSIGN_OR_RETURN(const bool go_on, ParseOptions(&table, arguments));
  if (!go_on) {
    return absl::OkStatus();
  }
  ConfigureLogs(options.log);
  options.server.config_in_force = table.PrintConfig();
  if (options.server.model.model.empty() || options.cluster_token.empty()) {
    return InvalidArgumentF("a coordinator needs a model and TESSERA_CLUSTER_TOKEN");
  }
  const SignalWatcher* const signals =
      SignalWatcher::Start(SignalWatcher::Hangup::kReloads);
  TESSERA_RETURN_IF_ERROR(CheckServerOptions(options.server));
  return Coordinate(options, *signals);
}

}  // namespace tessera::cli
