#include "engram_store/service/engram_shard.h"

#include <algorithm>
#include <utility>

#include <unistd.h>

#include "common/mutex.h"
#include "common/status.h"
#include "common/status_macros.h"
#include "engram_store/table/row_gather.h"

namespace tessera::engram_store {

namespace {

// Of tables in memory or on disk.
template <typename Table>
absl::Status CheckTables(const EngramShardOptions& options,
                         const EngramManifest& manifest,
                         std::span<const std::unique_ptr<Table>> tables) {
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
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::unique_ptr<EngramShard>> EngramShard::CreateOnDisk(
    const EngramShardOptions& options, EngramManifest manifest,
    std::shared_ptr<DiskRows> rows) {
  TESSERA_RETURN_IF_ERROR(CheckTables(options, manifest, rows->tables()));
  std::unique_ptr<EngramShard> result(
      new EngramShard(options, std::move(manifest), rows->tables()[0]->shard()));
  result->disk_ = std::move(rows);
  return result;
}

absl::StatusOr<std::unique_ptr<EngramShard>> EngramShard::Create(
    const EngramShardOptions& options, EngramManifest manifest,
    std::vector<std::unique_ptr<EngramTable>> tables) {
  TESSERA_RETURN_IF_ERROR(CheckTables<EngramTable>(options, manifest, tables));
  const ShardIndex shard = tables[0]->shard();
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
  for (const ManifestTable& table : manifest_.tables) {
    row_bytes = std::max(row_bytes, table.layout.row_bytes());
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
  if (table >= manifest_.tables.size()) {
    return InvalidArgumentF("engram table {} of {}", table, manifest_.tables.size());
  }
  if (row_ids.size() > options_.max_rows_per_request) {
    return StatusF(absl::StatusCode::kResourceExhausted,
                   "{} engram rows in one request, expected at most {}", row_ids.size(),
                   options_.max_rows_per_request);
  }
  return absl::OkStatus();
}

void EngramShard::Count(const absl::Status& status, size_t num_rows, std::string* rows,
                        size_t before) const {
  if (status.ok()) {
    rows_.fetch_add(num_rows, std::memory_order_relaxed);
    bytes_.fetch_add(rows->size() - before, std::memory_order_relaxed);
  } else {
    rows->resize(before);
    errors_.fetch_add(1, std::memory_order_relaxed);
  }
}

void EngramShard::StartLookup(std::string_view shard_id, uint32_t table,
                              std::span<const uint32_t> row_ids, std::string* rows,
                              Done done) const {
  lookups_.fetch_add(1, std::memory_order_relaxed);
  const size_t before = rows->size();
  absl::Status status = CheckLookup(shard_id, table, row_ids);
  if (status.ok()) {
    rows->resize(before +
                 row_ids.size() *
                     static_cast<size_t>(manifest_.tables[table].layout.row_bytes()));
    if (disk_ != nullptr) {
      return ReadLookup(table, row_ids, rows, before, std::move(done));
    }
    status = tables_[table]->Gather(
        row_ids, std::as_writable_bytes(std::span(*rows)).subspan(before));
  }
  Count(status, row_ids.size(), rows, before);
  done(status);
}

void EngramShard::ReadLookup(uint32_t table, std::span<const uint32_t> row_ids,
                             std::string* rows, size_t before, Done done) const {
  absl::Status status = CheckRowIds(row_ids, disk_->tables()[table]->num_local_rows());
  if (status.ok()) {
    const size_t num_rows = row_ids.size();
    const RowFetch* const fetch = disk_->Start(
        table, row_ids, std::as_writable_bytes(std::span(*rows)).subspan(before),
        [this, num_rows, rows, before, done](RowFetch* ended) {
          const absl::Status outcome = disk_->Finish(ended);
          Count(outcome, num_rows, rows, before);
          done(outcome);
        });
    if (fetch != nullptr) {
      return;
    }
    status = StatusF(absl::StatusCode::kResourceExhausted,
                     "too many engram lookups read from disk");
  }
  Count(status, row_ids.size(), rows, before);
  done(status);
}

absl::Status EngramShard::Lookup(std::string_view shard_id, uint32_t table,
                                 std::span<const uint32_t> row_ids,
                                 std::string* rows) const {
  absl::Status status;
  Notification ended;
  StartLookup(shard_id, table, row_ids, rows, [&](const absl::Status& outcome) {
    status = outcome;
    ended.Notify();
  });
  ended.WaitForNotification();
  return status;
}

EngramShardStats EngramShard::stats() const {
  return EngramShardStats{.lookups = lookups_.load(std::memory_order_relaxed),
                          .rows = rows_.load(std::memory_order_relaxed),
                          .bytes = bytes_.load(std::memory_order_relaxed),
                          .errors = errors_.load(std::memory_order_relaxed)};
}

}  // namespace tessera::engram_store
