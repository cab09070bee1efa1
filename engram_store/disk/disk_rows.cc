#include "engram_store/disk/disk_rows.h"

#include <algorithm>
#include <cstring>
#include <system_error>
#include <utility>

#include "common/check.h"
#include "common/status.h"
#include "common/status_macros.h"

namespace tessera::engram_store {
namespace {

constexpr int kMaxThreads = 1024;
// Of the cache and of the fetches in flight, what is read ahead may take one part in so
// many: the rest is for what is waited for.
constexpr size_t kAheadShare = 4;
// Rows that are looked up and copied under one hold of the cache's lock.
constexpr size_t kRowsPerLock = 256;
// A fetch of more rows gives its buffers back when it ends.
constexpr size_t kMaxKeptRows = size_t{1} << 16;

absl::Status CheckTables(const DiskRowsOptions& options,
                         std::span<const std::unique_ptr<DiskTable>> tables) {
  if (tables.empty()) {
    return InvalidArgumentF("no engram tables to serve from disk");
  }
  if (options.io_threads < 1 || options.io_threads > kMaxThreads ||
      options.max_fetches < kAheadShare) {
    return InvalidArgumentF("{} read threads, expected 1 to {}; {} fetches, expected {}",
                            options.io_threads, kMaxThreads, options.max_fetches,
                            kAheadShare);
  }
  for (const std::unique_ptr<DiskTable>& table : tables) {
    if (table->shard() != tables[0]->shard()) {
      return InvalidArgumentF("engram tables of shards {} and {}",
                              tables[0]->shard().shard, table->shard().shard);
    }
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::shared_ptr<DiskRows>> DiskRows::Create(
    const DiskRowsOptions& options, std::vector<std::unique_ptr<DiskTable>> tables) {
  TESSERA_RETURN_IF_ERROR(CheckTables(options, tables));
  HotRowCacheOptions cache_options;
  cache_options.capacity_bytes = options.cache_bytes;
  std::vector<ShardMap> maps;
  uint64_t buffer_pages = kMaxExtentPages;
  for (const std::unique_ptr<DiskTable>& table : tables) {
    cache_options.num_rows += table->num_local_rows();
    cache_options.max_row_bytes =
        std::max(cache_options.max_row_bytes, table->row_bytes());
    buffer_pages = std::max(buffer_pages, table->max_row_pages());
    const auto rows = static_cast<uint32_t>(table->num_local_rows());
    TESSERA_ASSIGN_OR_RETURN(ShardMap map, ShardMap::Create({&rows, 1}, 1));
    maps.push_back(std::move(map));
  }
  TESSERA_ASSIGN_OR_RETURN(std::unique_ptr<HotRowCache> cache,
                           HotRowCache::Create(cache_options));
  std::vector<std::unique_ptr<RowMemory>> buffers;
  for (int i = 0; i < options.io_threads; ++i) {
    TESSERA_ASSIGN_OR_RETURN(std::unique_ptr<RowMemory> buffer,
                             RowMemory::AllocatePrivate(buffer_pages * kFilePageBytes));
    buffers.push_back(std::move(buffer));
  }
  std::shared_ptr<DiskRows> rows(new DiskRows(options, std::move(tables), std::move(maps),
                                              std::move(cache), std::move(buffers)));
  try {
    for (const std::unique_ptr<RowMemory>& buffer : rows->buffers_) {
      rows->readers_.emplace_back([self = rows.get(), bytes = buffer->mutable_bytes()] {
        self->RunReader(bytes);
      });
    }
  } catch (const std::system_error& error) {
    return StatusF(absl::StatusCode::kResourceExhausted,
                   "no thread {} of {} to read engram rows: {}", rows->readers_.size(),
                   options.io_threads, error.what());
  }
  return rows;
}

DiskRows::DiskRows(const DiskRowsOptions& options,
                   std::vector<std::unique_ptr<DiskTable>> tables,
                   std::vector<ShardMap> maps, std::unique_ptr<HotRowCache> cache,
                   std::vector<std::unique_ptr<RowMemory>> buffers)
    : options_(options),
      tables_(std::move(tables)),
      maps_(std::move(maps)),
      buffers_(std::move(buffers)),
      cache_(std::move(cache)) {}

DiskRows::~DiskRows() {
  MutexLock lock(&mutex_);
  stopping_ = true;
}

RowFetch* DiskRows::Acquire(bool ahead) {
  MutexLock lock(&mutex_);
  if (ahead && num_ahead_ >= options_.max_fetches / kAheadShare) {
    return nullptr;
  }
  if (free_.empty()) {
    if (fetches_.size() >= options_.max_fetches) {
      return nullptr;
    }
    fetches_.push_back(std::make_unique<RowFetch>());
    free_.push_back(fetches_.back().get());
  }
  RowFetch* const fetch = free_.back();
  free_.pop_back();
  num_ahead_ += ahead ? 1 : 0;
  fetch->ahead = ahead;
  return fetch;
}

void DiskRows::Release(RowFetch* fetch) {
  fetch->done = nullptr;
  if (fetch->missing.capacity() > kMaxKeptRows) {
    fetch->distinct = RoutedRows();
    fetch->missing = {};
    fetch->extents = {};
  }
  MutexLock lock(&mutex_);
  num_ahead_ -= fetch->ahead ? 1 : 0;
  free_.push_back(fetch);
}

RowFetch* DiskRows::Start(size_t table, std::span<const uint32_t> rows,
                          std::span<std::byte> destination, Done done) {
  RowFetch* const fetch = Acquire(/*ahead=*/false);
  if (fetch == nullptr) {
    return nullptr;
  }
  fetch->table = table;
  fetch->done = std::move(done);
  fetch->distinct.Route(maps_[table], rows);
  {
    MutexLock lock(&fetch->mutex);
    fetch->destination = destination;
  }
  LookUp(fetch);
  const size_t missing = fetch->missing.size();
  hits_.fetch_add(fetch->distinct.local_rows(0).size() - missing,
                  std::memory_order_relaxed);
  misses_.fetch_add(missing, std::memory_order_relaxed);
  Enqueue(fetch);
  return fetch;
}

void DiskRows::Prefetch(size_t table, std::span<const uint32_t> rows) {
  RowFetch* const fetch = Acquire(/*ahead=*/true);
  if (fetch == nullptr) {
    dropped_ahead_.fetch_add(rows.size(), std::memory_order_relaxed);
    return;
  }
  fetch->table = table;
  fetch->distinct.Route(maps_[table], rows);
  LookUp(fetch);
  const size_t most = [this] {
    MutexLock lock(&cache_mutex_);
    return static_cast<size_t>(cache_->max_rows() / kAheadShare);
  }();
  if (fetch->missing.size() > most) {
    dropped_ahead_.fetch_add(fetch->missing.size() - most, std::memory_order_relaxed);
    fetch->missing.resize(most);
  }
  ahead_rows_.fetch_add(fetch->missing.size(), std::memory_order_relaxed);
  Enqueue(fetch);
}

void DiskRows::LookUp(RowFetch* fetch) {
  const auto table = static_cast<uint32_t>(fetch->table);
  const size_t row_bytes = tables_[fetch->table]->row_bytes();
  const std::span<const uint32_t> rows = fetch->distinct.local_rows(0);
  fetch->missing.clear();
  for (size_t done = 0; done < rows.size(); done += kRowsPerLock) {
    const size_t end = std::min(rows.size(), done + kRowsPerLock);
    MutexLock cache_lock(&cache_mutex_);
    MutexLock fetch_lock(&fetch->mutex);
    for (size_t i = done; i < end; ++i) {
      const std::byte* const row =
          fetch->ahead ? cache_->Peek(table, rows[i]) : cache_->Find(table, rows[i]);
      if (row == nullptr) {
        fetch->missing.push_back({.row = rows[i], .place = static_cast<uint32_t>(i)});
      } else if (!fetch->ahead) {
        fetch->distinct.Scatter(0, i, {row, row_bytes}, row_bytes,
                                fetch->destination.data());
      }
    }
  }
}

void DiskRows::Enqueue(RowFetch* fetch) {
  std::ranges::sort(fetch->missing, {}, &MissingRow::row);
  PlanExtents(*tables_[fetch->table], fetch->missing, &fetch->extents);
  fetch->next_extent = 0;
  const bool all_here = fetch->extents.empty();
  {
    MutexLock lock(&fetch->mutex);
    fetch->extents_left = fetch->extents.size();
    fetch->abandoned = fetch->ahead;  // Nobody waits for what is read ahead.
    fetch->ended = all_here;
    fetch->status = absl::OkStatus();
  }
  if (!all_here) {
    MutexLock lock(&mutex_);
    (fetch->ahead ? ahead_ : waited_for_).push_back(fetch);
  } else if (fetch->ahead) {
    Release(fetch);
  } else {
    CallDone(fetch);
  }
}

void DiskRows::CallDone(RowFetch* fetch) {
  // The fetch may be gone, and used again, before the function returns.
  const Done done = std::move(fetch->done);
  done(fetch);
}

absl::Status DiskRows::Finish(RowFetch* fetch) {
  absl::Status status;
  {
    MutexLock lock(&fetch->mutex);
    TESSERA_CHECK(fetch->ended);
    status = fetch->status;
  }
  Release(fetch);
  return status;
}

bool DiskRows::Abandon(RowFetch* fetch) {
  MutexLock lock(&fetch->mutex);
  fetch->abandoned = !fetch->ended;
  return fetch->abandoned;
}

void DiskRows::RunReader(std::span<std::byte> buffer) {
  RowFetch* fetch = nullptr;
  size_t index = 0;
  while (NextExtent(&fetch, &index)) {
    const FetchExtent extent = fetch->extents[index];
    const absl::Status status = ReadExtent(*fetch, extent, buffer);
    EndExtent(fetch, extent, status, buffer);
  }
}

bool DiskRows::NextExtent(RowFetch** fetch, size_t* extent) {
  MutexLock lock(&mutex_);
  const auto ready = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    return stopping_ || !waited_for_.empty() || !ahead_.empty();
  };
  mutex_.Await(Condition(&ready));
  if (stopping_) {
    return false;
  }
  std::deque<RowFetch*>& queue = waited_for_.empty() ? ahead_ : waited_for_;
  *fetch = queue.front();
  *extent = (*fetch)->next_extent++;
  if ((*fetch)->next_extent == (*fetch)->extents.size()) {
    queue.pop_front();
  }
  return true;
}

// Leaves the rows of the extent one after the other at the start of the buffer.
absl::Status DiskRows::ReadExtent(const RowFetch& fetch, const FetchExtent& extent,
                                  std::span<std::byte> buffer) {
  if (CopyIfHere(fetch, extent, buffer.data())) {
    return absl::OkStatus();
  }
  const DiskTable& table = *tables_[fetch.table];
  const std::span<std::byte> pages = buffer.first(extent.pages.count * kFilePageBytes);
  const absl::Status status = table.Read(extent.pages, pages);
  reads_.fetch_add(1, std::memory_order_relaxed);
  read_bytes_.fetch_add(pages.size(), std::memory_order_relaxed);
  untaken_bytes_.fetch_add(pages.size(), std::memory_order_relaxed);
  if (!status.ok()) {
    failed_reads_.fetch_add(1, std::memory_order_relaxed);
    return status;
  }
  MutexLock lock(&cache_mutex_);
  for (size_t i = 0; i < extent.count; ++i) {
    const uint32_t number = fetch.missing[extent.first + i].row;
    const std::span<const std::byte> row = table.RowIn(extent.pages, pages, number);
    const bool evicts =
        cache_->Insert(static_cast<uint32_t>(fetch.table), number, row, fetch.ahead);
    evictions_ += evicts ? 1 : 0;
    // Rows rise and lie behind where they go.
    std::memmove(buffer.data() + i * table.row_bytes(), row.data(), row.size());
  }
  return absl::OkStatus();
}

bool DiskRows::CopyIfHere(const RowFetch& fetch, const FetchExtent& extent,
                          std::byte* rows) {
  const size_t row_bytes = tables_[fetch.table]->row_bytes();
  MutexLock lock(&cache_mutex_);
  for (size_t i = 0; i < extent.count; ++i) {
    const std::byte* const row = cache_->Peek(static_cast<uint32_t>(fetch.table),
                                              fetch.missing[extent.first + i].row);
    if (row == nullptr) {
      return false;
    }
    std::memcpy(rows + i * row_bytes, row, row_bytes);
  }
  return true;
}

void DiskRows::EndExtent(RowFetch* fetch, const FetchExtent& extent,
                         const absl::Status& status, std::span<const std::byte> rows) {
  const size_t row_bytes = tables_[fetch->table]->row_bytes();
  bool abandoned = false;
  {
    MutexLock lock(&fetch->mutex);
    abandoned = fetch->abandoned;
    if (!status.ok()) {
      fetch->status.Update(status);
    } else if (!abandoned) {
      for (size_t i = 0; i < extent.count; ++i) {
        fetch->distinct.Scatter(0, fetch->missing[extent.first + i].place,
                                rows.subspan(i * row_bytes, row_bytes), row_bytes,
                                fetch->destination.data());
      }
    }
    if (--fetch->extents_left > 0) {
      return;
    }
    fetch->ended = true;
  }
  if (abandoned) {
    Release(fetch);
  } else {
    CallDone(fetch);
  }
}

DiskRowsStats DiskRows::stats() const {
  DiskRowsStats stats = {
      .hits = hits_.load(std::memory_order_relaxed),
      .misses = misses_.load(std::memory_order_relaxed),
      .evictions = 0,
      .reads = reads_.load(std::memory_order_relaxed),
      .read_bytes = read_bytes_.load(std::memory_order_relaxed),
      .failed_reads = failed_reads_.load(std::memory_order_relaxed),
      .ahead_rows = ahead_rows_.load(std::memory_order_relaxed),
      .dropped_ahead = dropped_ahead_.load(std::memory_order_relaxed),
  };
  MutexLock lock(&cache_mutex_);
  stats.evictions = evictions_;
  return stats;
}

uint64_t DiskRows::num_bytes() const {
  uint64_t bytes = 0;
  for (const std::unique_ptr<DiskTable>& table : tables_) {
    bytes += table->num_bytes();
  }
  for (const std::unique_ptr<RowMemory>& buffer : buffers_) {
    bytes += buffer->bytes().size();
  }
  MutexLock lock(&cache_mutex_);
  return bytes + cache_->num_bytes();
}

}  // namespace tessera::engram_store
