#include "engram_store/client/remote_source.h"

#include <algorithm>
#include <atomic>
#include <utility>

#include "absl/base/thread_annotations.h"

#include "common/mutex.h"
#include "common/status.h"
#include "common/status_macros.h"
#include "engram_store/client/shard_router.h"

namespace tessera::engram_store {

// Owned by the source alone, which waits for all callbacks before it goes: a channel must
// not be closed on a thread of gRPC, which would wait for itself. Immutable but for its
// counters.
struct RemoteSource::Shards {
  Clock* clock = nullptr;
  absl::Duration attempt_timeout;
  size_t max_attempts = 0;
  std::vector<std::vector<std::unique_ptr<ShardClient>>> clients;  // [S][replicas]
  std::vector<std::string> shard_ids;                              // [S]
  std::vector<ShardMap> maps;                                      // one per table
  std::vector<size_t> rows_per_lookup;                             // one per table
  // The replica of each shard that answered last.
  std::vector<std::atomic<size_t>> preferred;

  std::atomic<uint64_t> lookups{0};
  std::atomic<uint64_t> bytes{0};
  std::atomic<uint64_t> errors{0};
  std::atomic<uint64_t> late_waits{0};
  std::atomic<uint64_t> failovers{0};

  Mutex mutex;
  int64_t in_flight ABSL_GUARDED_BY(mutex) = 0;

  void Begin() {
    MutexLock lock(&mutex);
    ++in_flight;
  }
  void End() {
    MutexLock lock(&mutex);
    --in_flight;
  }
  void AwaitIdle() {
    MutexLock lock(&mutex);
    const auto idle = [this]()
                          ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex) { return in_flight == 0; };
    mutex.Await(Condition(&idle));
  }
};

struct RemoteSource::Request {
  // Set by Issue, then only read.
  size_t table = 0;
  size_t row_bytes = 0;
  std::span<std::byte> destination;
  RoutedRows routed;

  Mutex mutex;
  // False from Wait's return on: the destination is the caller's again.
  bool live ABSL_GUARDED_BY(mutex) = true;
  size_t remaining ABSL_GUARDED_BY(mutex) = 0;  // lookups without rows so far
  absl::Status failure ABSL_GUARDED_BY(mutex);  // of a lookup that has no replica left
  std::vector<std::shared_ptr<LookupCall>> calls ABSL_GUARDED_BY(mutex);

  bool IsDecided() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex) {
    return remaining == 0 || !failure.ok();
  }

  // Ends the request; the calls that are still to be cancelled, outside the lock.
  std::vector<std::shared_ptr<LookupCall>> Close() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex) {
    live = false;
    return std::move(calls);
  }
};

struct RemoteSource::Batch {
  std::shared_ptr<Request> request;
  uint32_t shard = 0;
  size_t first = 0;  // in local_rows(shard)
  size_t count = 0;
  size_t replica = 0;
  size_t attempts = 0;  // made before this one

  std::span<const uint32_t> rows() const {
    return request->routed.local_rows(shard).subspan(first, count);
  }
};

namespace {

// What the last replica said, as the contract of EngramSource names it.
absl::Status FinalStatus(const absl::Status& status, uint32_t shard) {
  const std::string context = fmt::format("no replica of engram shard {} answers", shard);
  switch (status.code()) {
    case absl::StatusCode::kInvalidArgument:
    case absl::StatusCode::kDataLoss:
      return status;
    case absl::StatusCode::kFailedPrecondition:  // Restarted with another table.
      return DataLossF("{}: {}", context, status.ToString());
    default:
      return UnavailableF("{}: {}", context, status.ToString());
  }
}

bool MayTryAnother(const absl::Status& status) {
  return status.code() != absl::StatusCode::kInvalidArgument &&
         status.code() != absl::StatusCode::kCancelled;
}

}  // namespace

absl::StatusOr<std::unique_ptr<RemoteSource>> RemoteSource::Create(
    const RemoteSourceOptions& options, Clock* clock) {
  using Pending = PendingTable<std::shared_ptr<Request>>;
  if (options.max_pending < 1 || options.max_pending > Pending::kMaxCapacity ||
      options.max_attempts < 1) {
    return InvalidArgumentF("{} pending requests with {} attempts", options.max_pending,
                            options.max_attempts);
  }
  TESSERA_ASSIGN_OR_RETURN(ConnectedShards connected,
                           ConnectShards(options.endpoints, clock));
  auto owned = std::make_unique<Shards>();
  Shards* const shards = owned.get();
  shards->clock = clock;
  shards->attempt_timeout = options.attempt_timeout;
  shards->max_attempts = options.max_attempts;
  shards->preferred = std::vector<std::atomic<size_t>>(connected.shards.size());
  const uint32_t num_shards = static_cast<uint32_t>(connected.shards.size());
  for (uint32_t shard = 0; shard < num_shards; ++shard) {
    shards->shard_ids.push_back(
        ShardId(connected.manifest, {.shard = shard, .num_shards = num_shards}));
    std::vector<std::unique_ptr<ShardClient>>& clients = shards->clients.emplace_back();
    bool answered = false;
    for (size_t i = 0; i < connected.shards[shard].size(); ++i) {
      ConnectedReplica& replica = connected.shards[shard][i];
      if (replica.description != nullptr && !answered) {
        shards->preferred[shard] = i;  // The first that answered.
        answered = true;
      }
      clients.push_back(std::move(replica.client));
    }
  }
  std::unique_ptr<RemoteSource> source(new RemoteSource(options, std::move(owned)));
  for (const ManifestTable& table : connected.manifest.tables) {
    TESSERA_ASSIGN_OR_RETURN(ShardMap map,
                             ShardMap::Create(table.layout.column_rows, num_shards));
    shards->maps.push_back(std::move(map));
    // Half of the message limit for rows leaves ample room for the rest of a message.
    shards->rows_per_lookup.push_back(
        std::clamp<uint64_t>(options.endpoints.max_response_bytes / 2 /
                                 static_cast<uint64_t>(table.layout.row_bytes()),
                             1, connected.max_rows_per_request));
    source->infos_.push_back(table.layout.Info(table.digest));
  }
  return source;
}

RemoteSource::RemoteSource(const RemoteSourceOptions& options,
                           std::unique_ptr<Shards> shards)
    : max_pending_(options.max_pending),
      shards_(std::move(shards)),
      pending_(options.max_pending) {}

RemoteSource::~RemoteSource() {
  pending_.ForEachPending([](const std::shared_ptr<Request>& request) {
    std::vector<std::shared_ptr<LookupCall>> calls;
    {
      MutexLock lock(&request->mutex);
      calls = request->Close();
    }
    for (const std::shared_ptr<LookupCall>& call : calls) {
      call->Cancel();
    }
  });
  shards_->AwaitIdle();
}

PendingRows RemoteSource::Issue(size_t table, std::span<const uint32_t> row_ids,
                                std::span<std::byte> destination) {
  std::shared_ptr<Request>* slot = nullptr;
  const uint64_t ticket = pending_.Acquire(&slot);
  if (slot == nullptr) {
    return PendingRows{.ticket = kRefusedTicket};
  }
  auto request = std::make_shared<Request>();
  *slot = request;
  shards_->lookups += row_ids.size();
  const absl::Status status = CheckRequest(infos_, table, row_ids, destination);
  if (!status.ok()) {
    MutexLock lock(&request->mutex);
    request->failure = status;
    request->remaining = 1;  // Nothing will land.
    return PendingRows{.ticket = ticket};
  }
  request->table = table;
  request->row_bytes = static_cast<size_t>(infos_[table].row_bytes);
  request->destination = destination;
  request->routed.Route(shards_->maps[table], row_ids);

  std::vector<Batch> batches;
  const size_t step = shards_->rows_per_lookup[table];
  for (uint32_t shard = 0; shard < request->routed.num_shards(); ++shard) {
    const size_t rows = request->routed.local_rows(shard).size();
    for (size_t first = 0; first < rows; first += step) {
      batches.push_back(Batch{.request = request,
                              .shard = shard,
                              .first = first,
                              .count = std::min(step, rows - first),
                              .replica = shards_->preferred[shard],
                              .attempts = 0});
    }
  }
  {
    MutexLock lock(&request->mutex);
    request->remaining = batches.size();
  }
  for (Batch& batch : batches) {
    StartAttempt(shards_.get(), std::move(batch));
  }
  return PendingRows{.ticket = ticket};
}

void RemoteSource::StartAttempt(Shards* shards, Batch batch) {
  ShardClient& client = *shards->clients[batch.shard][batch.replica];
  std::shared_ptr<LookupCall> call =
      client.NewLookup({.shard_id = shards->shard_ids[batch.shard],
                        .table = static_cast<uint32_t>(batch.request->table),
                        .local_rows = batch.rows(),
                        .deadline = shards->clock->Now() + shards->attempt_timeout});
  {
    MutexLock lock(&batch.request->mutex);
    if (!batch.request->live) {
      return;  // Its Wait has returned; nobody needs the rows.
    }
    batch.request->calls.push_back(call);
  }
  shards->Begin();
  call->Start([shards, batch = std::move(batch)](const absl::Status& status,
                                                 std::span<const std::byte> rows) {
    FinishAttempt(shards, batch, status, rows);
    shards->End();
  });
}

void RemoteSource::FinishAttempt(Shards* shards, Batch batch, absl::Status status,
                                 std::span<const std::byte> rows) {
  Request& request = *batch.request;
  if (status.ok() && rows.size() != batch.count * request.row_bytes) {
    status = DataLossF("engram shard {} sent {} bytes for {} rows of {}", batch.shard,
                       rows.size(), batch.count, request.row_bytes);
  }
  if (status.ok()) {
    shards->preferred[batch.shard] = batch.replica;
    MutexLock lock(&request.mutex);
    if (request.live) {
      request.routed.Scatter(batch.shard, batch.first, rows, request.row_bytes,
                             request.destination.data());
      --request.remaining;
    }
    return;
  }
  ++batch.attempts;
  if (batch.attempts < shards->max_attempts && MayTryAnother(status) &&
      batch.attempts <= shards->clients[batch.shard].size()) {
    // Every replica once, and then the first again: its connection may just have been
    // stale.
    batch.replica = (batch.replica + 1) % shards->clients[batch.shard].size();
    ++shards->failovers;
    StartAttempt(shards, std::move(batch));
    return;
  }
  MutexLock lock(&request.mutex);
  if (request.failure.ok()) {
    request.failure = FinalStatus(status, batch.shard);
  }
}

absl::Status RemoteSource::Wait(PendingRows pending, absl::Time deadline) {
  if (pending.ticket == kRefusedTicket) {
    ++shards_->errors;
    return StatusF(absl::StatusCode::kResourceExhausted,
                   "more than {} engram requests pending", max_pending_);
  }
  std::shared_ptr<Request>* slot = pending_.Find(pending.ticket);
  if (slot == nullptr) {
    ++shards_->errors;
    return InvalidArgumentF("engram ticket {} is not pending", pending.ticket);
  }
  const std::shared_ptr<Request> request = std::move(*slot);
  pending_.Release(pending.ticket);

  absl::Status status;
  std::vector<std::shared_ptr<LookupCall>> calls;
  {
    MutexLock lock(&request->mutex);
    if (!request->IsDecided()) {
      ++shards_->late_waits;
      const auto decided = [&request]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(request->mutex) {
        return request->IsDecided();
      };
      (void)request->mutex.AwaitWithDeadline(Condition(&decided), deadline);
    }
    if (!request->failure.ok()) {
      status = request->failure;
    } else if (request->remaining > 0) {
      status = DeadlineExceededF("{} engram lookups without an answer at the deadline",
                                 request->remaining);
    }
    calls = request->Close();
  }
  if (status.ok()) {
    shards_->bytes += request->destination.size();
    return status;
  }
  ++shards_->errors;
  for (const std::shared_ptr<LookupCall>& call : calls) {
    call->Cancel();
  }
  return status;
}

EngramSourceStats RemoteSource::stats() const {
  EngramSourceStats stats;
  stats.lookups = shards_->lookups;
  stats.bytes = shards_->bytes;
  stats.errors = shards_->errors;
  stats.late_waits = shards_->late_waits;
  return stats;
}

uint64_t RemoteSource::failovers() const { return shards_->failovers; }

}  // namespace tessera::engram_store
