// MemorySource: rows from tables that this process can address, its own (resident) or
// mapped from the shards of this host (shm). A table may be whole or in S shards; all of
// them must be here.
//
// Issue copies the first rows of a request at once, up to a bound that keeps it short;
// Wait copies the rest. No helper thread: handing a typical decode batch over would cost
// as much as copying it, and the step thread is what waits anyway. Nothing but Issue and
// Wait ever writes a destination.
#ifndef TESSERA_ENGRAM_STORE_CLIENT_MEMORY_SOURCE_H_
#define TESSERA_ENGRAM_STORE_CLIENT_MEMORY_SOURCE_H_

#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"

#include "common/clock.h"
#include "engram_store/client/engram_source.h"
#include "engram_store/client/pending_table.h"
#include "engram_store/table/engram_table.h"

namespace tessera::engram_store {

struct MemorySourceOptions {
  std::string name = "resident";  // or "shm"
  size_t max_pending = 64;
  // Rows that Issue copies itself: about 200 us at 20 M rows/s.
  size_t max_inline_rows = 4096;
};

// Step thread only; stats() from any thread only between steps.
class MemorySource final : public EngramSource {
 public:
  // `tables`: for each Engram layer, in order, all its shards in order (one for a whole
  // table). kInvalidArgument: no tables, a shard missing or twice, shards of different
  // tables (layout or digest), max_pending outside 1..65535.
  static absl::StatusOr<std::unique_ptr<MemorySource>> Create(
      const MemorySourceOptions& options, Clock* clock,
      std::vector<std::vector<std::shared_ptr<const EngramTable>>> tables);

  std::string_view name() const override { return options_.name; }
  std::span<const TableInfo> tables() const override { return infos_; }
  std::span<const std::shared_ptr<const EngramTable>> local_shards(
      size_t table) const override {
    return tables_[table];
  }
  PendingRows Issue(size_t table, std::span<const uint32_t> row_ids,
                    std::span<std::byte> destination) override;
  absl::Status Wait(PendingRows pending, absl::Time deadline) override;
  EngramSourceStats stats() const override { return stats_; }
  void CountDeviceReads(size_t table, size_t num_rows) override {
    stats_.lookups += num_rows;
    stats_.bytes += num_rows * static_cast<size_t>(infos_[table].row_bytes);
  }

 private:
  struct Request {
    size_t table = 0;
    std::span<const uint32_t> row_ids;
    std::span<std::byte> destination;
    size_t done = 0;  // rows copied
    absl::Status status;
  };
  MemorySource(const MemorySourceOptions& options, Clock* clock,
               std::vector<std::vector<std::shared_ptr<const EngramTable>>> tables);

  // Copies up to `max_rows` more rows.
  void Copy(Request* request, size_t max_rows) const;

  const MemorySourceOptions options_;
  Clock* const clock_;
  const std::vector<std::vector<std::shared_ptr<const EngramTable>>> tables_;
  std::vector<TableInfo> infos_;
  std::vector<std::vector<const std::byte*>> rows_;  // [tables][shards], packed
  PendingTable<Request> pending_;
  EngramSourceStats stats_;
};

// ResidentSource: the whole tables in this process. As MemorySource::Create with one
// shard each.
absl::StatusOr<std::unique_ptr<MemorySource>> CreateResidentSource(
    Clock* clock, std::vector<std::shared_ptr<const EngramTable>> tables);

}  // namespace tessera::engram_store

#endif  // TESSERA_ENGRAM_STORE_CLIENT_MEMORY_SOURCE_H_
