// DiskSource: rows of whole tables that stay on this process's disk, through the cache
// that the sources of all ranks of this process share (disk_rows.h).
//
// Issue copies what the cache holds and hands the rest to the read threads, which write
// rows to the destination as they come.
#ifndef TESSERA_ENGRAM_STORE_DISK_DISK_SOURCE_H_
#define TESSERA_ENGRAM_STORE_DISK_DISK_SOURCE_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"

#include "common/mutex.h"
#include "engram_store/client/engram_source.h"
#include "engram_store/client/pending_table.h"
#include "engram_store/disk/disk_rows.h"

namespace tessera::engram_store {

// Step thread only, but for Prefetch, which any thread may call.
class DiskSource final : public EngramSource {
 public:
  // kInvalidArgument: tables in more than one shard, max_pending outside 1..65535.
  static absl::StatusOr<std::unique_ptr<DiskSource>> Create(
      std::shared_ptr<DiskRows> rows, size_t max_pending);
  ~DiskSource() override;

  std::string_view name() const override { return "disk"; }
  std::span<const TableInfo> tables() const override { return infos_; }
  PendingRows Issue(size_t table, std::span<const uint32_t> row_ids,
                    std::span<std::byte> destination) override;
  absl::Status Wait(PendingRows pending, absl::Time deadline) override;
  void Prefetch(size_t table, std::span<const uint32_t> row_ids) override;
  bool prefetches() const override { return true; }
  EngramSourceStats stats() const override { return stats_; }

 private:
  struct Request {
    absl::Status refused;       // before it began
    RowFetch* fetch = nullptr;  // null if refused
    size_t bytes = 0;
    bool landed = false;  // under mutex_
  };
  DiskSource(std::shared_ptr<DiskRows> rows, size_t max_pending);

  // Waits for a request that began.
  absl::Status Collect(Request* request, absl::Time deadline);
  void AwaitLanding(Request* request, absl::Time deadline);
  bool HasLanded(const Request& request);

  const std::shared_ptr<DiskRows> rows_;
  const size_t max_pending_;
  std::vector<TableInfo> infos_;
  EngramSourceStats stats_;
  PendingTable<Request> pending_;
  Mutex mutex_;  // guards Request::landed of every request
};

}  // namespace tessera::engram_store

#endif  // TESSERA_ENGRAM_STORE_DISK_DISK_SOURCE_H_
