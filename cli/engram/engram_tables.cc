#include "cli/engram/engram_tables.h"

#include <utility>

#include "fmt/format.h"

#include "common/log.h"
#include "common/status_macros.h"
#include "engram_store/disk/disk_source.h"
#include "engram_store/disk/table_folder.h"
#include "engram_store/table/parallel.h"
#include "worker/service/read_ahead_executor.h"

namespace tessera::cli {
namespace {

constexpr size_t kMaxPendingRequests = 64;

}  // namespace

void AddTableOptions(OptionTable* table, TableOptions* options) {
  table->Add(
      "engram-table-folder", &options->folder,
      "Engram tables stay on disk, in files that are packed into this folder once; "
      "empty: in memory");
  table
      ->Add("engram-row-cache-mib", &options->row_cache_mib,
            "memory for rows of tables on disk, of each process that holds some")
      .Range(1, int64_t{1} << 30);
  table
      ->Add("engram-io-threads", &options->io_threads,
            "reads of tables on disk that a process has under way at a time")
      .Range(1, 1024);
}

std::vector<std::string> TableArguments(const TableOptions& options) {
  if (!options.on_disk()) {
    return {};  // An empty value behind = would take the next argument for it.
  }
  return {fmt::format("--engram-table-folder={}", options.folder),
          fmt::format("--engram-row-cache-mib={}", options.row_cache_mib),
          fmt::format("--engram-io-threads={}", options.io_threads)};
}

absl::StatusOr<DiskTables> OpenDiskTables(const LoadedModel& model,
                                          const TableOptions& options,
                                          engram_store::ShardIndex shard) {
  TESSERA_ASSIGN_OR_RETURN(
      engram_store::OpenedTables opened,
      engram_store::OpenTableFolder(model.config, *model.hash, *model.checkpoint,
                                    {.folder = options.folder,
                                     .shard = shard,
                                     .num_threads = engram_store::DefaultLoadThreads()}));
  DiskTables tables;
  tables.manifest = std::move(opened.manifest);
  TESSERA_ASSIGN_OR_RETURN(
      tables.rows, engram_store::DiskRows::Create(
                       {.cache_bytes = static_cast<uint64_t>(options.row_cache_mib) << 20,
                        .io_threads = options.io_threads},
                       std::move(opened.tables)));
  log::Info("engram", "tables on disk",
            {{"folder", options.folder},
             {"row_cache_mib", options.row_cache_mib},
             {"memory_bytes", tables.rows->num_bytes()}});
  return tables;
}

absl::StatusOr<EngramSourceFactory> OwnEngram(const LoadedModel& model,
                                              const TableOptions& options, Clock* clock) {
  if (!options.on_disk() || !model.hash.has_value()) {
    return ResidentEngram(model, clock);
  }
  TESSERA_ASSIGN_OR_RETURN(const DiskTables tables, OpenDiskTables(model, options, {}));
  return EngramSourceFactory(
      [rows = tables.rows](
          int) -> absl::StatusOr<std::unique_ptr<engram_store::EngramSource>> {
        return engram_store::DiskSource::Create(rows, kMaxPendingRequests);
      });
}

std::unique_ptr<proto::StepExecutor> WithReadAhead(
    std::unique_ptr<proto::StepExecutor> executor, const LoadedModel& model,
    const AssembledRank& rank, int64_t max_slots) {
  if (rank.engram == nullptr || !rank.engram->prefetches()) {
    return executor;
  }
  return std::make_unique<worker::ReadAheadExecutor>(
      worker::ReadAheadOptions{.max_slots = static_cast<size_t>(max_slots),
                               .max_ngram = model.config.engram->max_ngram},
      std::move(executor), model.hash_or_null(), rank.engram.get());
}

}  // namespace tessera::cli
