#include "engram_store/client/cached_source.h"

#include <algorithm>
#include <limits>
#include <utility>

#include "common/status.h"
#include "common/status_macros.h"

namespace tessera::engram_store {
namespace {

// Rows ahead of the one that is looked up: covers the latency of a line of keys.
constexpr size_t kLookupsAhead = 8;
// Rows ahead of the one that is copied, as in a gather.
constexpr size_t kCopiesAhead = 12;
constexpr size_t kCacheLine = 64;

void PrefetchRow(const std::byte* row, size_t row_bytes) {
  for (size_t offset = 0; offset < row_bytes; offset += kCacheLine) {
    __builtin_prefetch(row + offset);
  }
  __builtin_prefetch(row + row_bytes - 1);
}

}  // namespace

absl::StatusOr<std::unique_ptr<CachedSource>> CachedSource::Create(
    const CachedSourceOptions& options, std::unique_ptr<EngramSource> source) {
  if (source == nullptr || source->tables().empty()) {
    return InvalidArgumentF("a row cache without an engram source that has tables");
  }
  if (options.max_pending < 1 ||
      options.max_pending > PendingTable<Request>::kMaxCapacity) {
    return InvalidArgumentF("max_pending {}, expected 1 to {}", options.max_pending,
                            PendingTable<Request>::kMaxCapacity);
  }
  HotRowCacheOptions cache;
  cache.capacity_bytes = options.capacity_bytes;
  std::vector<ShardMap> maps;
  for (const TableInfo& table : source->tables()) {
    if (table.num_rows > std::numeric_limits<uint32_t>::max() || table.row_bytes < 1) {
      return InvalidArgumentF("an engram table of {} rows of {} bytes", table.num_rows,
                              table.row_bytes);
    }
    cache.num_rows += table.num_rows;
    cache.max_row_bytes =
        std::max(cache.max_row_bytes, static_cast<size_t>(table.row_bytes));
    const uint32_t rows = static_cast<uint32_t>(table.num_rows);
    TESSERA_ASSIGN_OR_RETURN(ShardMap map, ShardMap::Create({&rows, 1}, 1));
    maps.push_back(std::move(map));
  }
  TESSERA_ASSIGN_OR_RETURN(std::unique_ptr<HotRowCache> rows, HotRowCache::Create(cache));
  return std::unique_ptr<CachedSource>(
      new CachedSource(options, std::move(rows), std::move(maps), std::move(source)));
}

CachedSource::CachedSource(const CachedSourceOptions& options,
                           std::unique_ptr<HotRowCache> cache, std::vector<ShardMap> maps,
                           std::unique_ptr<EngramSource> source)
    : max_pending_(options.max_pending),
      cache_(std::move(cache)),
      maps_(std::move(maps)),
      pending_(options.max_pending),
      source_(std::move(source)) {}

PendingRows CachedSource::Issue(size_t table, std::span<const uint32_t> row_ids,
                                std::span<std::byte> destination) {
  Request* request = nullptr;
  const uint64_t ticket = pending_.Acquire(&request);
  if (request == nullptr) {
    return PendingRows{.ticket = kRefusedTicket};
  }
  stats_.lookups += row_ids.size();
  request->destination = destination;
  request->status = CheckRequest(tables(), table, row_ids, destination);
  if (!request->status.ok()) {
    return PendingRows{.ticket = ticket};
  }
  request->table = table;
  request->distinct.Route(maps_[table], row_ids);
  LookUp(request);
  if (!request->missing.empty()) {
    const size_t bytes = request->missing.size() * row_bytes(table);
    if (request->fetched.size() < bytes) {
      request->fetched.resize(bytes);
    }
    request->fetch =
        source_->Issue(table, request->missing, std::span(request->fetched).first(bytes));
  }
  CopyHits(*request);  // While the others are under way.
  return PendingRows{.ticket = ticket};
}

void CachedSource::LookUp(Request* request) {
  const uint32_t table = static_cast<uint32_t>(request->table);
  const std::span<const uint32_t> rows = request->distinct.local_rows(0);
  request->hits.clear();
  request->missing.clear();
  request->missing_places.clear();
  for (size_t i = 0; i < std::min(kLookupsAhead, rows.size()); ++i) {
    cache_->Prefetch(table, rows[i]);
  }
  for (size_t i = 0; i < rows.size(); ++i) {
    if (i + kLookupsAhead < rows.size()) {
      cache_->Prefetch(table, rows[i + kLookupsAhead]);
    }
    const std::byte* row = cache_->Find(table, rows[i]);
    if (row != nullptr) {
      request->hits.emplace_back(i, row);
    } else {
      request->missing.push_back(rows[i]);
      request->missing_places.push_back(i);
    }
  }
  stats_.cache_hits += request->hits.size();
  stats_.cache_misses += request->missing.size();
}

void CachedSource::CopyHits(const Request& request) const {
  const size_t bytes = row_bytes(request.table);
  const auto& hits = request.hits;
  for (size_t i = 0; i < std::min(kCopiesAhead, hits.size()); ++i) {
    PrefetchRow(hits[i].second, bytes);
  }
  for (size_t i = 0; i < hits.size(); ++i) {
    if (i + kCopiesAhead < hits.size()) {
      PrefetchRow(hits[i + kCopiesAhead].second, bytes);
    }
    request.distinct.Scatter(0, hits[i].first, {hits[i].second, bytes}, bytes,
                             request.destination.data());
  }
}

void CachedSource::TakeFetched(const Request& request) {
  const size_t bytes = row_bytes(request.table);
  for (size_t i = 0; i < request.missing.size(); ++i) {
    const std::span<const std::byte> row =
        std::span(request.fetched).subspan(i * bytes, bytes);
    request.distinct.Scatter(0, request.missing_places[i], row, bytes,
                             request.destination.data());
    stats_.cache_evictions +=
        cache_->Insert(static_cast<uint32_t>(request.table), request.missing[i], row) ? 1
                                                                                      : 0;
  }
}

absl::Status CachedSource::Wait(PendingRows pending, absl::Time deadline) {
  if (pending.ticket == kRefusedTicket) {
    ++stats_.errors;
    return StatusF(absl::StatusCode::kResourceExhausted,
                   "more than {} engram requests pending", max_pending_);
  }
  Request* request = pending_.Find(pending.ticket);
  if (request == nullptr) {
    ++stats_.errors;
    return InvalidArgumentF("engram ticket {} is not pending", pending.ticket);
  }
  absl::Status status = request->status;
  if (status.ok() && !request->missing.empty()) {
    status = source_->Wait(request->fetch, deadline);
    if (status.ok()) {
      TakeFetched(*request);
    }
  }
  if (status.ok()) {
    stats_.bytes += request->destination.size();
  } else {
    ++stats_.errors;
  }
  pending_.Release(pending.ticket);
  return status;
}

EngramSourceStats CachedSource::stats() const {
  EngramSourceStats stats = stats_;
  stats.late_waits = source_->stats().late_waits;
  return stats;
}

}  // namespace tessera::engram_store
