// Where a process keeps the Engram tables that it serves rows from: in its memory, or on
// its disk behind a bounded cache of rows. The same options for a shard, a worker and
// `serve`.
#ifndef TESSERA_CLI_ENGRAM_ENGRAM_TABLES_H_
#define TESSERA_CLI_ENGRAM_ENGRAM_TABLES_H_

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "cli/loaded_model.h"
#include "cli/ranks/rank_assembly.h"

#include "common/clock.h"
#include "common/option_table.h"
#include "engram_store/disk/disk_rows.h"
#include "engram_store/table/engram_manifest.h"
#include "engram_store/table/shard_map.h"
#include "proto/step_executor.h"

namespace tessera::cli {

struct TableOptions {
  std::string folder;  // of table files; empty: in memory
  int64_t row_cache_mib = 1024;
  int io_threads = 32;

  bool on_disk() const { return !folder.empty(); }
};

void AddTableOptions(OptionTable* table, TableOptions* options);

// The words that give a child process the same options.
std::vector<std::string> TableArguments(const TableOptions& options);

struct DiskTables {
  engram_store::EngramManifest manifest;
  std::shared_ptr<engram_store::DiskRows> rows;
};

// The shard's rows on disk, packed first where they are not there. Errors of
// OpenTableFolder and DiskRows::Create.
absl::StatusOr<DiskTables> OpenDiskTables(const LoadedModel& model,
                                          const TableOptions& options,
                                          engram_store::ShardIndex shard);

// Rows of whole tables of this process, in memory or on disk, shared by all its ranks;
// null sources for a model without Engram.
absl::StatusOr<EngramSourceFactory> OwnEngram(const LoadedModel& model,
                                              const TableOptions& options, Clock* clock);

// `executor`, with what its plans will need read ahead where the rank's source is slow.
// `model` and `rank` must outlive it.
std::unique_ptr<proto::StepExecutor> WithReadAhead(
    std::unique_ptr<proto::StepExecutor> executor, const LoadedModel& model,
    const AssembledRank& rank, int64_t max_slots);

}  // namespace tessera::cli

#endif  // TESSERA_CLI_ENGRAM_ENGRAM_TABLES_H_
