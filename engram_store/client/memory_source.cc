#include "engram_store/client/memory_source.h"

#include <algorithm>
#include <utility>

#include "common/status.h"
#include "common/status_macros.h"
#include "engram_store/table/row_gather.h"

namespace tessera::engram_store {
namespace {

using Shards = std::vector<std::shared_ptr<const EngramTable>>;

absl::Status CheckShards(const Shards& shards) {
  if (shards.empty()) {
    return InvalidArgumentF("an engram layer without a table");
  }
  for (size_t i = 0; i < shards.size(); ++i) {
    const ShardIndex expected = {.shard = static_cast<uint32_t>(i),
                                 .num_shards = static_cast<uint32_t>(shards.size())};
    if (shards[i]->shard() != expected) {
      return InvalidArgumentF("engram shard {} of {} at place {} of {}",
                              shards[i]->shard().shard, shards[i]->shard().num_shards, i,
                              shards.size());
    }
    if (shards[i]->layout() != shards[0]->layout() ||
        shards[i]->info().digest != shards[0]->info().digest) {
      return InvalidArgumentF(
          "engram shards 0 and {} of layer {} are of different tables", i,
          shards[0]->info().layer_id);
    }
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::unique_ptr<MemorySource>> MemorySource::Create(
    const MemorySourceOptions& options, Clock* clock,
    std::vector<std::vector<std::shared_ptr<const EngramTable>>> tables) {
  if (tables.empty()) {
    return InvalidArgumentF("an engram source without tables");
  }
  if (options.max_pending < 1 ||
      options.max_pending > PendingTable<Request>::kMaxCapacity) {
    return InvalidArgumentF("max_pending {}, expected 1 to {}", options.max_pending,
                            PendingTable<Request>::kMaxCapacity);
  }
  for (const Shards& shards : tables) {
    TESSERA_RETURN_IF_ERROR(CheckShards(shards));
  }
  return std::unique_ptr<MemorySource>(
      new MemorySource(options, clock, std::move(tables)));
}

MemorySource::MemorySource(
    const MemorySourceOptions& options, Clock* clock,
    std::vector<std::vector<std::shared_ptr<const EngramTable>>> tables)
    : options_(options),
      clock_(clock),
      tables_(std::move(tables)),
      pending_(options.max_pending) {
  for (const Shards& shards : tables_) {
    infos_.push_back(shards[0]->info());
    std::vector<const std::byte*>& rows = rows_.emplace_back();
    for (const std::shared_ptr<const EngramTable>& shard : shards) {
      rows.push_back(shard->rows().data());
    }
  }
}

PendingRows MemorySource::Issue(size_t table, std::span<const uint32_t> row_ids,
                                std::span<std::byte> destination) {
  Request* request = nullptr;
  const uint64_t ticket = pending_.Acquire(&request);
  if (request == nullptr) {
    return PendingRows{.ticket = kRefusedTicket};
  }
  *request = Request{.table = table,
                     .row_ids = row_ids,
                     .destination = destination,
                     .done = 0,
                     .status = absl::OkStatus()};
  request->status = CheckRequest(infos_, table, row_ids, destination);
  stats_.lookups += row_ids.size();
  if (request->status.ok()) {
    Copy(request, options_.max_inline_rows);
  }
  return PendingRows{.ticket = ticket};
}

void MemorySource::Copy(Request* request, size_t max_rows) const {
  const Shards& shards = tables_[request->table];
  const size_t row_bytes = static_cast<size_t>(infos_[request->table].row_bytes);
  const std::span<const uint32_t> ids = request->row_ids.subspan(request->done);
  const size_t count = std::min(max_rows, ids.size());
  std::byte* const out = request->destination.data() + request->done * row_bytes;
  if (shards.size() == 1) {
    GatherRows(shards[0]->rows().data(), row_bytes, ids.first(count), out);
  } else {
    GatherShardedRows(shards[0]->shard_map(), rows_[request->table], row_bytes,
                      ids.first(count), out);
  }
  request->done += count;
}

absl::Status MemorySource::Wait(PendingRows pending, absl::Time deadline) {
  if (pending.ticket == kRefusedTicket) {
    ++stats_.errors;
    return StatusF(absl::StatusCode::kResourceExhausted,
                   "more than {} engram requests pending", options_.max_pending);
  }
  Request* request = pending_.Find(pending.ticket);
  if (request == nullptr) {
    ++stats_.errors;
    return InvalidArgumentF("engram ticket {} is not pending", pending.ticket);
  }
  absl::Status status = request->status;
  if (status.ok() && request->done < request->row_ids.size()) {
    ++stats_.late_waits;
    // In pieces, so that the deadline is kept.
    while (status.ok() && request->done < request->row_ids.size()) {
      if (clock_->Now() >= deadline) {
        status = DeadlineExceededF("{} of {} engram rows copied at the deadline",
                                   request->done, request->row_ids.size());
      } else {
        Copy(request, options_.max_inline_rows);
      }
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

absl::StatusOr<std::unique_ptr<MemorySource>> CreateResidentSource(
    Clock* clock, std::vector<std::shared_ptr<const EngramTable>> tables) {
  std::vector<Shards> layers;
  for (std::shared_ptr<const EngramTable>& table : tables) {
    layers.push_back({std::move(table)});
  }
  return MemorySource::Create(MemorySourceOptions{}, clock, std::move(layers));
}

}  // namespace tessera::engram_store
