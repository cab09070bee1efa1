#include "engram_store/client/shared_memory_source.h"

#include <utility>
#include <vector>

#include "common/status.h"
#include "common/status_macros.h"
#include "engram_store/table/shared_segment.h"

namespace tessera::engram_store {
namespace {

using TableShards = std::vector<std::shared_ptr<const EngramTable>>;

// All tables of one replica.
absl::StatusOr<TableShards> MapReplica(const EngramManifest& manifest,
                                       const ShardDescription& description) {
  if (description.segments.empty()) {
    return StatusF(absl::StatusCode::kFailedPrecondition,
                   "the rows stay on disk and cannot be mapped; expected source remote");
  }
  TableShards tables;
  for (size_t i = 0; i < manifest.tables.size(); ++i) {
    TESSERA_ASSIGN_OR_RETURN(
        std::unique_ptr<EngramTable> table,
        MapSharedTable(description.segments[i], manifest.tables[i].layout,
                       manifest.tables[i].digest));
    tables.push_back(std::move(table));
  }
  return tables;
}

}  // namespace

absl::StatusOr<std::unique_ptr<MemorySource>> CreateSharedMemorySource(
    const ShardEndpoints& endpoints, size_t max_pending, Clock* clock) {
  TESSERA_ASSIGN_OR_RETURN(const ConnectedShards connected,
                           ConnectShards(endpoints, clock));
  std::vector<TableShards> layers(connected.manifest.tables.size());
  for (size_t shard = 0; shard < connected.shards.size(); ++shard) {
    absl::StatusOr<TableShards> mapped =
        UnavailableF("engram shard {} has no replica on this host", shard);
    for (const ConnectedReplica& replica : connected.shards[shard]) {
      if (replica.description != nullptr && !mapped.ok()) {
        mapped = MapReplica(connected.manifest, *replica.description);
      }
    }
    if (!mapped.ok()) {
      return WithContext(mapped.status(), fmt::format("engram shard {}", shard));
    }
    for (size_t i = 0; i < layers.size(); ++i) {
      layers[i].push_back((*mapped)[i]);
    }
  }
  MemorySourceOptions options;
  options.name = "shm";
  options.max_pending = max_pending;
  return MemorySource::Create(options, clock, std::move(layers));
}

}  // namespace tessera::engram_store
