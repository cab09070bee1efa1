// RowFetch: one request in flight of DiskRows: which rows are missing, where on disk they
// lie, and how far the reading is. Users only pass it back.
#ifndef TESSERA_ENGRAM_STORE_DISK_ROW_FETCH_H_
#define TESSERA_ENGRAM_STORE_DISK_ROW_FETCH_H_

#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"

#include "common/mutex.h"
#include "engram_store/client/shard_router.h"
#include "engram_store/disk/disk_table.h"

namespace tessera::engram_store {

// A row that is not in the cache.
struct MissingRow {
  uint32_t row = 0;    // local
  uint32_t place = 0;  // in RoutedRows::local_rows(0)
};

// Missing rows whose pages are read at once.
struct FetchExtent {
  PageRun pages;
  size_t first = 0;  // of the missing rows
  size_t count = 0;
};

// Pages that neighbouring rows are read together up to: 64 KiB take hardly longer than 4.
inline constexpr uint64_t kMaxExtentPages = 16;

// The extents of `missing`, rising rows of `table`. A row of more pages has one of its
// own.
void PlanExtents(const DiskTable& table, std::span<const MissingRow> missing,
                 std::vector<FetchExtent>* extents);

// Buffers are kept from request to request.
struct RowFetch {
  size_t table = 0;
  bool ahead = false;  // has no destination
  RoutedRows distinct;
  std::vector<MissingRow> missing;  // rising
  std::vector<FetchExtent> extents;
  std::function<void(RowFetch*)> done;
  size_t next_extent = 0;  // under the lock of the queue

  Mutex mutex;
  std::span<std::byte> destination ABSL_GUARDED_BY(mutex);
  size_t extents_left ABSL_GUARDED_BY(mutex) = 0;
  bool abandoned ABSL_GUARDED_BY(mutex) = false;
  bool ended ABSL_GUARDED_BY(mutex) = false;
  absl::Status status ABSL_GUARDED_BY(mutex);  // the first failure
};

}  // namespace tessera::engram_store

#endif  // TESSERA_ENGRAM_STORE_DISK_ROW_FETCH_H_
