// tessera engram: one shard of the Engram tables as a process: packs its rows into shared
// memory and serves them, to processes of this host by mapping and to others by gRPC; or
// into files on disk, and serves them through a bounded cache by gRPC.
#include <cstdint>
#include <iostream>
#include <memory>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "cli/cell_options.h"
#include "cli/engram/engram_tables.h"
#include "cli/loaded_model.h"
#include "cli/server_options.h"
#include "cli/signals.h"
#include "cli/subcommand.h"
#include "fmt/format.h"

#include "common/build_info.h"
#include "common/clock.h"
#include "common/log.h"
#include "common/mutex.h"
#include "common/option_table.h"
#include "common/status.h"
#include "common/status_macros.h"
#include "engram_store/service/engram_server.h"
#include "engram_store/service/engram_shard.h"
#include "engram_store/table/checkpoint_tables.h"
#include "engram_store/table/engram_manifest.h"
#include "engram_store/table/shared_segment.h"
#include "proto/cluster_client.h"

namespace tessera::cli {
namespace {

constexpr absl::Duration kShutdownGrace = absl::Seconds(2);
constexpr absl::Duration kPoll = absl::Milliseconds(50);

struct ShardOptions {
  std::string model;
  LoadOptions load;
  CellOptions cell;
  LogOptions log;
  std::string listen = "127.0.0.1:0";
  int shard = 0;
  int num_shards = 1;
  int replica = 0;
  int num_replicas = 1;
  TableOptions tables;
};

absl::StatusOr<std::shared_ptr<const engram_store::EngramShard>> OpenShard(
    const ShardOptions& options, const LoadedModel& model) {
  const engram_store::ShardIndex index = {static_cast<uint32_t>(options.shard),
                                          static_cast<uint32_t>(options.num_shards)};
  if (options.tables.on_disk()) {
    TESSERA_ASSIGN_OR_RETURN(DiskTables tables,
                             OpenDiskTables(model, options.tables, index));
    return engram_store::EngramShard::CreateOnDisk({}, std::move(tables.manifest),
                                                   std::move(tables.rows));
  }
  engram_store::PackOptions pack;
  pack.shard = index;
  pack.shared_memory = true;
  pack.prefix_bytes = engram_store::kSegmentHeaderBytes;
  TESSERA_ASSIGN_OR_RETURN(
      engram_store::LoadedTables loaded,
      engram_store::LoadEngramTables(model.config, *model.hash, *model.checkpoint, pack));
  return engram_store::EngramShard::Create({}, std::move(loaded.manifest),
                                           std::move(loaded.tables));
}

absl::StatusOr<std::unique_ptr<engram_store::EngramServer>> StartShard(
    const ShardOptions& options, const LoadedModel& model, Clock* clock) {
  TESSERA_ASSIGN_OR_RETURN(std::shared_ptr<const engram_store::EngramShard> shard,
                           OpenShard(options, model));
  return engram_store::EngramServer::Create(
      {.address = options.listen, .auth_token = options.cell.cluster_token}, clock,
      std::move(shard));
}

absl::Status Serve(const ShardOptions& options, const SignalWatcher& signals) {
  Clock* const clock = Clock::Real();
  TESSERA_ASSIGN_OR_RETURN(const std::unique_ptr<LoadedModel> model,
                           LoadModel(options.model, options.load));
  if (!model->hash.has_value()) {
    return InvalidArgumentF("{} has no Engram tables", options.model);
  }
  TESSERA_ASSIGN_OR_RETURN(const std::unique_ptr<engram_store::EngramServer> server,
                           StartShard(options, *model, clock));
  std::vector<std::string> digests;
  for (const engram_store::ManifestTable& table : server->shard().manifest().tables) {
    digests.push_back(table.digest);
  }
  Notification refused;
  std::unique_ptr<proto::ClusterClient> client;
  if (!options.cell.coordinator.empty()) {
    const auto rank =
        static_cast<uint32_t>(options.shard * options.num_replicas + options.replica);
    TESSERA_ASSIGN_OR_RETURN(
        client,
        proto::ClusterClient::Create({.coordinator_address = options.cell.coordinator,
                                      .auth_token = options.cell.cluster_token},
                                     {.role = proto::ClusterRole::kEngram,
                                      .rank = rank,
                                      .epoch = 0,
                                      .address = server->address(),
                                      .build_version = std::string(Version()),
                                      .numerics_id = "",
                                      .model_digest = model->checkpoint->digest(),
                                      .table_digests = digests},
                                     [&refused](const absl::Status& status) {
                                       log::Error("engram", "refused by the coordinator",
                                                  {{"error", status.ToString()}});
                                       refused.Notify();
                                     }));
  }
  log::Info("engram", "serving",
            {{"shard", options.shard},
             {"num_shards", options.num_shards},
             {"replica", options.replica},
             {"address", server->address()}});
  while (!signals.WaitForFirst(kPoll)) {
    if (refused.HasBeenNotified()) {
      return absl::FailedPreconditionError("the coordinator refused this shard");
    }
  }
  server->Shutdown(kShutdownGrace);
  const engram_store::EngramShardStats stats = server->shard().stats();
  log::Info("engram", "stopped",
            {{"lookups", stats.lookups}, {"rows", stats.rows}, {"errors", stats.errors}});
  if (server->shard().disk() != nullptr) {
    const engram_store::DiskRowsStats disk = server->shard().disk()->stats();
    log::Info("engram", "read from disk",
              {{"hits", disk.hits},
               {"misses", disk.misses},
               {"evictions", disk.evictions},
               {"reads", disk.reads},
               {"read_bytes", disk.read_bytes},
               {"failed_reads", disk.failed_reads}});
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status RunEngram(Arguments arguments) {
  ShardOptions options;
  OptionTable table("engram", "Serves one shard of a model's Engram tables.");
  table.Heading("Model");
  table.Add("model", &options.model, "checkpoint folder").Positional("MODEL");
  AddLoadOptions(&table, &options.load);
  table.Heading("Shard");
  table.Add("shard", &options.shard, "index of this shard").Range(0, 1023);
  table.Add("num-shards", &options.num_shards, "shards that the rows are split over")
      .Range(1, 1024);
  table.Add("replica", &options.replica, "index of this replica of the shard")
      .Range(0, 15);
  table.Add("num-replicas", &options.num_replicas, "replicas of every shard")
      .Range(1, 16);
  table.Add("listen", &options.listen, "address to serve on; port 0: any free one");
  AddTableOptions(&table, &options.tables);
  AddCellOptions(&table, &options.cell);
  AddLogOptions(&table, &options.log);
  TESSERA_ASSIGN_OR_RETURN(const bool go_on, ParseOptions(&table, arguments));
  if (!go_on) {
    return absl::OkStatus();
  }
  ConfigureLogs(options.log);
  if (options.model.empty()) {
    return InvalidArgumentF("a shard needs a model folder");
  }
  if (options.shard >= options.num_shards || options.replica >= options.num_replicas) {
    return InvalidArgumentF("shard {} of {}, replica {} of {}: an index is too large",
                            options.shard, options.num_shards, options.replica,
                            options.num_replicas);
  }
  const SignalWatcher* const signals = SignalWatcher::Start();
  return Serve(options, *signals);
}

}  // namespace tessera::cli
