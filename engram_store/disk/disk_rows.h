// DiskRows: the tables of one shard served from disk through a bounded cache of rows.
// Rows that the cache holds are copied at once; the others are read by a pool of threads,
// as many reads at a time, sorted by place and neighbouring pages together, and kept.
//
// Memory: the cache, a buffer per read thread, 4 bytes per page of the tables (the sums
// that every page is checked against), and the row numbers of what is in flight; whatever
// the size of the tables. The page cache is not used where the file system allows
// (block_file.h).
//
// What is read ahead of its use (Prefetch) yields to what is waited for, and whoever
// comes second to a row finds it in the cache: before a thread reads it looks again.
#ifndef TESSERA_ENGRAM_STORE_DISK_DISK_ROWS_H_
#define TESSERA_ENGRAM_STORE_DISK_DISK_ROWS_H_

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <span>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"

#include "common/mutex.h"
#include "engram_store/client/hot_row_cache.h"
#include "engram_store/disk/disk_table.h"
#include "engram_store/disk/row_fetch.h"
#include "engram_store/table/row_memory.h"
#include "engram_store/table/shard_map.h"

namespace tessera::engram_store {

struct DiskRowsOptions {
  uint64_t cache_bytes = uint64_t{1} << 30;  // for rows and keys
  int io_threads = 32;                       // reads at a time
  size_t max_fetches = 256;                  // in flight, a quarter of them ahead
};

// Counters since creation, for metrics.
struct DiskRowsStats {
  uint64_t hits = 0;    // distinct rows of a fetch that were in the cache
  uint64_t misses = 0;  // and that were not
  uint64_t evictions = 0;
  uint64_t reads = 0;       // of the disk
  uint64_t read_bytes = 0;  // whole pages
  uint64_t failed_reads = 0;
  uint64_t ahead_rows = 0;     // asked for by Prefetch and not there
  uint64_t dropped_ahead = 0;  // rows that Prefetch had no room for
};

// Thread-safe. When it is destroyed no fetch may be in flight but abandoned ones and what
// Prefetch began, which end then.
class DiskRows {
 public:
  // Called once per fetch when it has ended, from Start or from a read thread; it must be
  // short, and calls Finish or has another thread call it.
  using Done = std::function<void(RowFetch*)>;

  // `tables`: the same shard of each. kInvalidArgument: none, of different shards, a
  // cache of less than eight rows, io_threads outside 1..1024, max_fetches below 4.
  // kResourceExhausted: no memory, no threads.
  static absl::StatusOr<std::shared_ptr<DiskRows>> Create(
      const DiskRowsOptions& options, std::vector<std::unique_ptr<DiskTable>> tables);
  ~DiskRows();
  DiskRows(const DiskRows&) = delete;
  DiskRows& operator=(const DiskRows&) = delete;

  std::span<const std::unique_ptr<DiskTable>> tables() const { return tables_; }

  // Begins to bring `rows`, local and checked, to `destination` in their order; it must
  // stay until Finish, or Abandon that said true. Does not wait for the disk. Null if
  // max_fetches are in flight.
  RowFetch* Start(size_t table, std::span<const uint32_t> rows,
                  std::span<std::byte> destination, Done done);

  // Once, after Done was called: how it ended. Errors of DiskTable::Read; rows of the
  // destination may have been written then.
  absl::Status Finish(RowFetch* fetch);

  // Gives the fetch up. True: the destination is not written any more, Done is not
  // called, and the fetch is gone. False: it has ended, and Done is called if it was not
  // yet.
  bool Abandon(RowFetch* fetch);

  // Reads rows that will be asked for soon into the cache. Does not wait for the disk. At
  // most a quarter of the cache at a time; errors are for the fetch to come.
  void Prefetch(size_t table, std::span<const uint32_t> rows);

  DiskRowsStats stats() const;
  // Bytes read since the last call: several users may each count what they take.
  uint64_t TakeReadBytes() { return untaken_bytes_.exchange(0); }
  // What the class comment counts, but for what is in flight.
  uint64_t num_bytes() const;

 private:
  DiskRows(const DiskRowsOptions& options, std::vector<std::unique_ptr<DiskTable>> tables,
           std::vector<ShardMap> maps, std::unique_ptr<HotRowCache> cache,
           std::vector<std::unique_ptr<RowMemory>> buffers);

  RowFetch* Acquire(bool ahead);
  void Release(RowFetch* fetch);
  // Splits the distinct rows into those that are here, which are copied, and the others.
  void LookUp(RowFetch* fetch);
  void Enqueue(RowFetch* fetch);
  static void CallDone(RowFetch* fetch);

  void RunReader(std::span<std::byte> buffer);
  // False when the pool ends.
  bool NextExtent(RowFetch** fetch, size_t* extent);
  absl::Status ReadExtent(const RowFetch& fetch, const FetchExtent& extent,
                          std::span<std::byte> buffer);
  bool CopyIfHere(const RowFetch& fetch, const FetchExtent& extent, std::byte* rows);
  void EndExtent(RowFetch* fetch, const FetchExtent& extent, const absl::Status& status,
                 std::span<const std::byte> rows);

  const DiskRowsOptions options_;
  const std::vector<std::unique_ptr<DiskTable>> tables_;
  const std::vector<ShardMap> maps_;  // one per table, of one shard: local rows
  const std::vector<std::unique_ptr<RowMemory>> buffers_;  // one per thread

  mutable Mutex cache_mutex_;
  const std::unique_ptr<HotRowCache> cache_ ABSL_PT_GUARDED_BY(cache_mutex_);
  uint64_t evictions_ ABSL_GUARDED_BY(cache_mutex_) = 0;

  Mutex mutex_;  // not held together with cache_mutex_ or that of a fetch
  std::vector<std::unique_ptr<RowFetch>> fetches_ ABSL_GUARDED_BY(mutex_);
  std::vector<RowFetch*> free_ ABSL_GUARDED_BY(mutex_);
  size_t num_ahead_ ABSL_GUARDED_BY(mutex_) = 0;
  std::deque<RowFetch*> waited_for_ ABSL_GUARDED_BY(mutex_);
  std::deque<RowFetch*> ahead_ ABSL_GUARDED_BY(mutex_);
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;

  std::atomic<uint64_t> hits_{0};
  std::atomic<uint64_t> misses_{0};
  std::atomic<uint64_t> reads_{0};
  std::atomic<uint64_t> read_bytes_{0};
  std::atomic<uint64_t> untaken_bytes_{0};
  std::atomic<uint64_t> failed_reads_{0};
  std::atomic<uint64_t> ahead_rows_{0};
  std::atomic<uint64_t> dropped_ahead_{0};

  std::vector<std::jthread> readers_;  // Last: they end before what they use goes.
};

}  // namespace tessera::engram_store

#endif  // TESSERA_ENGRAM_STORE_DISK_DISK_ROWS_H_
