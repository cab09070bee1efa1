#include "engram_store/disk/disk_source.h"

#include <utility>

#include "common/status.h"
#include "common/status_macros.h"
#include "engram_store/table/row_gather.h"

namespace tessera::engram_store {

absl::StatusOr<std::unique_ptr<DiskSource>> DiskSource::Create(
    std::shared_ptr<DiskRows> rows, size_t max_pending) {
  if (max_pending < 1 || max_pending > PendingTable<Request>::kMaxCapacity) {
    return InvalidArgumentF("max_pending {}, expected 1 to {}", max_pending,
                            PendingTable<Request>::kMaxCapacity);
  }
  const ShardIndex shard = rows->tables()[0]->shard();
  if (shard.num_shards != 1) {
    return InvalidArgumentF("an engram source on disk of shard {} of {}, expected all",
                            shard.shard, shard.num_shards);
  }
  return std::unique_ptr<DiskSource>(new DiskSource(std::move(rows), max_pending));
}

DiskSource::DiskSource(std::shared_ptr<DiskRows> rows, size_t max_pending)
    : rows_(std::move(rows)), max_pending_(max_pending), pending_(max_pending) {
  for (const std::unique_ptr<DiskTable>& table : rows_->tables()) {
    infos_.push_back(table->info());
  }
}

DiskSource::~DiskSource() {
  pending_.ForEachPending([this](Request& request) {
    if (request.fetch != nullptr && !rows_->Abandon(request.fetch)) {
      AwaitLanding(&request, absl::InfiniteFuture());
      (void)rows_->Finish(request.fetch);
    }
  });
}

PendingRows DiskSource::Issue(size_t table, std::span<const uint32_t> row_ids,
                              std::span<std::byte> destination) {
  Request* request = nullptr;
  const uint64_t ticket = pending_.Acquire(&request);
  if (request == nullptr) {
    return PendingRows{.ticket = kRefusedTicket};
  }
  stats_.lookups += row_ids.size();
  *request = Request{.refused = CheckRequest(infos_, table, row_ids, destination),
                     .fetch = nullptr,
                     .bytes = destination.size(),
                     .landed = false};
  if (!request->refused.ok()) {
    return PendingRows{.ticket = ticket};
  }
  request->fetch = rows_->Start(table, row_ids, destination, [this, request](RowFetch*) {
    MutexLock lock(&mutex_);
    request->landed = true;
  });
  if (request->fetch == nullptr) {
    request->refused = StatusF(absl::StatusCode::kResourceExhausted,
                               "too many engram requests read from disk");
    return PendingRows{.ticket = ticket};
  }
  const size_t missing = request->fetch->missing.size();
  stats_.cache_misses += missing;
  stats_.cache_hits += request->fetch->distinct.local_rows(0).size() - missing;
  return PendingRows{.ticket = ticket};
}

bool DiskSource::HasLanded(const Request& request) {
  MutexLock lock(&mutex_);
  return request.landed;
}

void DiskSource::AwaitLanding(Request* request, absl::Time deadline) {
  const auto landed = [request] { return request->landed; };
  MutexLock lock(&mutex_);
  (void)mutex_.AwaitWithDeadline(Condition(&landed), deadline);
}

absl::Status DiskSource::Collect(Request* request, absl::Time deadline) {
  if (!HasLanded(*request)) {
    ++stats_.late_waits;
    AwaitLanding(request, deadline);
  }
  if (!HasLanded(*request)) {
    if (rows_->Abandon(request->fetch)) {
      return DeadlineExceededF("engram rows are still being read at the deadline");
    }
    AwaitLanding(request, absl::InfiniteFuture());  // It has ended: a moment.
  }
  return rows_->Finish(request->fetch);
}

absl::Status DiskSource::Wait(PendingRows pending, absl::Time deadline) {
  if (pending.ticket == kRefusedTicket) {
    ++stats_.errors;
    return StatusF(absl::StatusCode::kResourceExhausted,
                   "more than {} engram requests pending", max_pending_);
  }
  Request* const request = pending_.Find(pending.ticket);
  if (request == nullptr) {
    ++stats_.errors;
    return InvalidArgumentF("engram ticket {} is not pending", pending.ticket);
  }
  const absl::Status status =
      request->refused.ok() ? Collect(request, deadline) : request->refused;
  if (status.ok()) {
    stats_.bytes += request->bytes;
  } else {
    ++stats_.errors;
  }
  stats_.disk_bytes += rows_->TakeReadBytes();
  pending_.Release(pending.ticket);
  return status;
}

void DiskSource::Prefetch(size_t table, std::span<const uint32_t> row_ids) {
  if (table < infos_.size() && CheckRowIds(row_ids, infos_[table].num_rows).ok()) {
    rows_->Prefetch(table, row_ids);
  }
}

}  // namespace tessera::engram_store
