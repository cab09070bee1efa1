// EngramSource: where table rows come from. Resident memory, this process's disk, shared
// memory of a shard on this host, a shard across the network, or a cache in front of one;
// the worker cannot tell. Conformance:
// tests/conformance/engram_source_conformance_test.cc.
//
// Contract
//   - Issue never blocks and never fails: what goes wrong is reported by Wait.
//   - Row i of the request lands at destination + i * row_bytes, byte for byte as in the
//   table; the
//     destination belongs to the caller and must stay alive until Wait returned.
//   - Wait returns OK only when every row has landed. A missing row is an error with a
//   name, never
//     zeros: kDeadlineExceeded, kUnavailable (no replica of a shard answers), kDataLoss
//     (a checksum or digest differs), kInvalidArgument (a row id out of range).
//   - After a Wait that failed, nothing writes to the destination any more.
//   - At most `max_pending` requests may be pending; one more makes its Wait return
//     kResourceExhausted.
#ifndef TESSERA_ENGRAM_STORE_CLIENT_ENGRAM_SOURCE_H_
#define TESSERA_ENGRAM_STORE_CLIENT_ENGRAM_SOURCE_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/time/time.h"

#include "engram_store/table/table_info.h"

namespace tessera::engram_store {

class EngramTable;

// A request in flight; obtained from Issue, spent by Wait.
struct PendingRows {
  uint64_t ticket = 0;
};

// Counters since creation, for metrics.
struct EngramSourceStats {
  // Rows asked for, and the bytes of those that came: by Issue, or by a device that read
  // them itself.
  uint64_t lookups = 0;
  uint64_t bytes = 0;
  uint64_t errors = 0;
  uint64_t late_waits = 0;  // Wait had to block
  // Of the distinct rows of each request; 0 where there is no cache.
  uint64_t cache_hits = 0;
  uint64_t cache_misses = 0;  // asked of the source behind the cache
  uint64_t cache_evictions = 0;
  uint64_t disk_bytes = 0;  // read; of a disk that ranks share, each by one of them
};

// What every source refuses before it begins: kInvalidArgument for a table that is not in
// `tables`, a destination of other than row_ids.size() rows of it, or a row id out of
// range.
absl::Status CheckRequest(std::span<const TableInfo> tables, size_t table,
                          std::span<const uint32_t> row_ids,
                          std::span<const std::byte> destination);

// Step thread only, unless an implementation says more.
class EngramSource {
 public:
  virtual ~EngramSource() = default;

  // "resident", "disk", "shm", "remote", "cached": the label of metrics.
  virtual std::string_view name() const = 0;

  // One per Engram layer, in the order of the model's engram layers. Fixed at creation.
  virtual std::span<const TableInfo> tables() const = 0;
  // The shards of a table, all of them and in order, where it lies in memory of this
  // process for as long as the source; otherwise none. A device may read such a table.
  virtual std::span<const std::shared_ptr<const EngramTable>> local_shards(
      size_t /*table*/) const {
    return {};
  }

  // `table` indexes tables(). destination.size() == row_ids.size() * row_bytes; row ids
  // are global in their layer's table. `row_ids` must stay alive until Wait, too.
  virtual PendingRows Issue(size_t table, std::span<const uint32_t> row_ids,
                            std::span<std::byte> destination) = 0;

  // Blocks until the rows landed or the deadline.
  virtual absl::Status Wait(PendingRows pending, absl::Time deadline) = 0;

  virtual EngramSourceStats stats() const = 0;
  // A device reads so many rows of local_shards(table) by itself.
  virtual void CountDeviceReads(size_t /*table*/, size_t /*num_rows*/) {}

  // Says that these rows of `table` will be asked for soon, perhaps: a source that is
  // slow may bring them closer. Never blocks, never fails, and changes no later answer.
  // Any thread.
  virtual void Prefetch(size_t /*table*/, std::span<const uint32_t> /*row_ids*/) {}
  // Whether that is of any use.
  virtual bool prefetches() const { return false; }
};

}  // namespace tessera::engram_store

#endif  // TESSERA_ENGRAM_STORE_CLIENT_ENGRAM_SOURCE_H_
