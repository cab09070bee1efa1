// EngramShard: one shard's rows of every Engram layer, and what it says about itself. The
// rows lie in sealed shared segments, so that clients on this host map them and clients
// elsewhere ask for copies (engram_server.h); or they stay on disk behind a bounded
// cache, and then all clients ask. Stateless per request; it knows no network.
#ifndef TESSERA_ENGRAM_STORE_SERVICE_ENGRAM_SHARD_H_
#define TESSERA_ENGRAM_STORE_SERVICE_ENGRAM_SHARD_H_

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

#include "engram_store/disk/disk_rows.h"
#include "engram_store/table/engram_manifest.h"
#include "engram_store/table/engram_table.h"
#include "engram_store/table/shared_segment.h"

namespace tessera::engram_store {

struct EngramShardOptions {
  // Fixed for the life of the shard and told at the handshake; 65,536 rows of V4.1 are 17
  // MB.
  uint32_t max_rows_per_request = 65536;
};

// Counters since creation, for metrics.
struct EngramShardStats {
  uint64_t lookups = 0;
  uint64_t rows = 0;
  uint64_t bytes = 0;
  uint64_t errors = 0;
};

// Immutable but for its counters; thread-safe.
class EngramShard {
 public:
  // `manifest`: with the digests of all tables. `tables`: the same shard of each of its
  // tables, in order; packed shared with kSegmentHeaderBytes in front they are served in
  // place, else copied. kInvalidArgument: tables that are not those of the manifest, or
  // of different shards; kResourceExhausted: no shared memory.
  static absl::StatusOr<std::unique_ptr<EngramShard>> Create(
      const EngramShardOptions& options, EngramManifest manifest,
      std::vector<std::unique_ptr<EngramTable>> tables);

  // With rows on disk. kInvalidArgument as above.
  static absl::StatusOr<std::unique_ptr<EngramShard>> CreateOnDisk(
      const EngramShardOptions& options, EngramManifest manifest,
      std::shared_ptr<DiskRows> rows);

  const EngramManifest& manifest() const { return manifest_; }
  ShardIndex shard() const { return shard_; }
  const std::string& shard_id() const { return shard_id_; }
  uint32_t max_rows_per_request() const { return options_.max_rows_per_request; }
  // One per table: how a process of this host maps it. None with rows on disk.
  std::span<const SharedSegment> segments() const { return segments_; }
  // The largest answer to a lookup.
  uint64_t max_response_bytes() const;

  using Done = std::function<void(const absl::Status&)>;

  // Appends the rows of `row_ids` (local to this shard) to `rows`, which must live until
  // `done` is called: before the return where the rows are in memory, else from a thread
  // that reads. It never waits for the disk. kFailedPrecondition: `shard_id` is not this
  // shard's; kInvalidArgument: table or row out of range; kResourceExhausted: too many;
  // with rows on disk also kUnavailable and kDataLoss. Nothing is appended then.
  void StartLookup(std::string_view shard_id, uint32_t table,
                   std::span<const uint32_t> row_ids, std::string* rows, Done done) const;
  // The same, and waits for it.
  absl::Status Lookup(std::string_view shard_id, uint32_t table,
                      std::span<const uint32_t> row_ids, std::string* rows) const;

  EngramShardStats stats() const;
  // Null with rows in memory.
  const DiskRows* disk() const { return disk_.get(); }

 private:
  EngramShard(const EngramShardOptions& options, EngramManifest manifest,
              ShardIndex shard)
      : options_(options),
        manifest_(std::move(manifest)),
        shard_(shard),
        shard_id_(ShardId(manifest_, shard)) {}

  absl::Status CheckLookup(std::string_view shard_id, uint32_t table,
                           std::span<const uint32_t> row_ids) const;
  void ReadLookup(uint32_t table, std::span<const uint32_t> row_ids, std::string* rows,
                  size_t before, Done done) const;
  // Counts an outcome; without success the rows are as they were.
  void Count(const absl::Status& status, size_t num_rows, std::string* rows,
             size_t before) const;

  const EngramShardOptions options_;
  const EngramManifest manifest_;
  const ShardIndex shard_;
  const std::string shard_id_;
  std::vector<std::unique_ptr<EngramTable>> tables_;  // empty with rows on disk
  std::shared_ptr<DiskRows> disk_;
  std::vector<SharedSegment> segments_;
  mutable std::atomic<uint64_t> lookups_{0};
  mutable std::atomic<uint64_t> rows_{0};
  mutable std::atomic<uint64_t> bytes_{0};
  mutable std::atomic<uint64_t> errors_{0};
};

}  // namespace tessera::engram_store

#endif  // TESSERA_ENGRAM_STORE_SERVICE_ENGRAM_SHARD_H_
