// EngramShard: one shard's rows of every Engram layer, and what it says about itself. The
// rows lie in sealed shared segments, so that clients on this host map them and clients
// elsewhere ask for copies (engram_server.h). Stateless per request; it knows no network.
#ifndef TESSERA_ENGRAM_STORE_SERVICE_ENGRAM_SHARD_H_
#define TESSERA_ENGRAM_STORE_SERVICE_ENGRAM_SHARD_H_

#include <atomic>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

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

  const EngramManifest& manifest() const { return manifest_; }
  ShardIndex shard() const { return shard_; }
  const std::string& shard_id() const { return shard_id_; }
  uint32_t max_rows_per_request() const { return options_.max_rows_per_request; }
  // One per table: how a process of this host maps it.
  std::span<const SharedSegment> segments() const { return segments_; }
  // The largest answer to a lookup.
  uint64_t max_response_bytes() const;

  // Appends the rows of `row_ids` (local to this shard) to `rows`. kFailedPrecondition:
  // `shard_id` is not this shard's; kInvalidArgument: table or row out of range;
  // kResourceExhausted: too many.
  absl::Status Lookup(std::string_view shard_id, uint32_t table,
                      std::span<const uint32_t> row_ids, std::string* rows) const;

  EngramShardStats stats() const;

 private:
  EngramShard(const EngramShardOptions& options, EngramManifest manifest,
              ShardIndex shard)
      : options_(options),
        manifest_(std::move(manifest)),
        shard_(shard),
        shard_id_(ShardId(manifest_, shard)) {}

  absl::Status CheckLookup(std::string_view shard_id, uint32_t table,
                           std::span<const uint32_t> row_ids) const;

  const EngramShardOptions options_;
  const EngramManifest manifest_;
  const ShardIndex shard_;
  const std::string shard_id_;
  std::vector<std::unique_ptr<EngramTable>> tables_;
  std::vector<SharedSegment> segments_;
  mutable std::atomic<uint64_t> lookups_{0};
  mutable std::atomic<uint64_t> rows_{0};
  mutable std::atomic<uint64_t> bytes_{0};
  mutable std::atomic<uint64_t> errors_{0};
};

}  // namespace tessera::engram_store

#endif  // TESSERA_ENGRAM_STORE_SERVICE_ENGRAM_SHARD_H_
