#include "engram_store/service/engram_shard.h"

#include <algorithm>
#include <utility>

#include <unistd.h>

#include "common/status.h"
#include "common/status_macros.h"

namespace tessera::engram_store {

absl::StatusOr<std::unique_ptr<EngramShard>> EngramShard::Create(
    const EngramShardOptions& options, EngramManifest manifest,
    std::vector<std::unique_ptr<EngramTable>> tables) {
  if (tables.empty() || tables.size() != manifest.tables.size()) {
    return InvalidArgumentF("{} engram tables, the manifest has {}", tables.size(),
                            manifest.tables.size());
  }
  if (options.max_rows_per_request < 1) {
    return InvalidArgumentF("an engram shard that serves 0 rows per request");
  }
  const ShardIndex shard = tables[0]->shard();
  for (size_t i = 0; i < tables.size(); ++i) {
    if (tables[i]->layout() != manifest.tables[i].layout ||
        tables[i]->info().digest != manifest.tables[i].digest) {
      return InvalidArgumentF("engram table {} is not the manifest's table of layer {}",
                              i, manifest.tables[i].layout.layer_id);
    }
    if (tables[i]->shard() != shard) {
      return InvalidArgumentF("engram tables of shards {} of {} and {} of {}",
                              shard.shard, shard.num_shards, tables[i]->shard().shard,
                              tables[i]->shard().num_shards);
    }
  }
  std::unique_ptr<EngramShard> result(
      new EngramShard(options, std::move(manifest), shard));
  for (std::unique_ptr<EngramTable>& table : tables) {
    TESSERA_ASSIGN_OR_RETURN(const SegmentNonce nonce, RandomSegmentNonce());
    TESSERA_ASSIGN_OR_RETURN(std::unique_ptr<EngramTable> shared,
                             ShareTable(std::move(table), nonce));
    result->segments_.push_back(SharedSegment{.process = getpid(),
                                              .file = shared->memory()->file(),
                                              .nonce = nonce,
                                              .shard = shard});
    result->tables_.push_back(std::move(shared));
  }
  return result;
}

uint64_t EngramShard::max_response_bytes() const {
  int64_t row_bytes = 0;
  for (const std::unique_ptr<EngramTable>& table : tables_) {
    row_bytes = std::max(row_bytes, table->info().row_bytes);
  }
  return static_cast<uint64_t>(row_bytes) * options_.max_rows_per_request;
}

absl::Status EngramShard::CheckLookup(std::string_view shard_id, uint32_t table,
                                      std::span<const uint32_t> row_ids) const {
  if (shard_id != shard_id_) {
    return StatusF(absl::StatusCode::kFailedPrecondition,
                   "lookup for engram shard {}, this is {}", shard_id.substr(0, 64),
                   shard_id_);
  }
  if (table >= tables_.size()) {
    return InvalidArgumentF("engram table {} of {}", table, tables_.size());
  }
  if (row_ids.size() > options_.max_rows_per_request) {
    return StatusF(absl::StatusCode::kResourceExhausted,
                   "{} engram rows in one request, expected at most {}", row_ids.size(),
                   options_.max_rows_per_request);
  }
  return absl::OkStatus();
}

absl::Status EngramShard::Lookup(std::string_view shard_id, uint32_t table,
                                 std::span<const uint32_t> row_ids,
                                 std::string* rows) const {
  lookups_.fetch_add(1, std::memory_order_relaxed);
  absl::Status status = CheckLookup(shard_id, table, row_ids);
  if (status.ok()) {
    const size_t before = rows->size();
    const size_t bytes =
        row_ids.size() * static_cast<size_t>(tables_[table]->info().row_bytes);
    rows->resize(before + bytes);
    status = tables_[table]->Gather(
        row_ids, std::as_writable_bytes(std::span(*rows)).subspan(before));
    if (status.ok()) {
      rows_.fetch_add(row_ids.size(), std::memory_order_relaxed);
      bytes_.fetch_add(bytes, std::memory_order_relaxed);
      return status;
    }
    rows->resize(before);
  }
  errors_.fetch_add(1, std::memory_order_relaxed);
  return status;
}

EngramShardStats EngramShard::stats() const {
  return EngramShardStats{.lookups = lookups_.load(std::memory_order_relaxed),
                          .rows = rows_.load(std::memory_order_relaxed),
                          .bytes = bytes_.load(std::memory_order_relaxed),
                          .errors = errors_.load(std::memory_order_relaxed)};
}

}  // namespace tessera::engram_store
