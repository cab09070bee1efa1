// RemoteSource: rows over gRPC from the shards of a model, with replicas. One request per
// shard and table (more only above the shard's limit), each row once however often it is
// asked for; answers go straight to the destination as they arrive.
//
// A lookup that fails or outlives `attempt_timeout` is sent to the next replica, at most
// `max_attempts` times. Answers are copied under the lock of their request and only while
// it is live, so that nothing is written after a failed Wait, however late an answer
// comes.
#ifndef TESSERA_ENGRAM_STORE_CLIENT_REMOTE_SOURCE_H_
#define TESSERA_ENGRAM_STORE_CLIENT_REMOTE_SOURCE_H_

#include <memory>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"

#include "common/clock.h"
#include "engram_store/client/engram_source.h"
#include "engram_store/client/pending_table.h"
#include "engram_store/client/shard_handshake.h"

namespace tessera::engram_store {

struct RemoteSourceOptions {
  ShardEndpoints endpoints;
  size_t max_pending = 64;
  // Of one attempt at one replica. A healthy shard answers in well under a millisecond; a
  // busy host may stall for a few hundred.
  absl::Duration attempt_timeout = absl::Seconds(1);
  size_t max_attempts = 4;
};

// Step thread only, but for stats() and failovers(), which any thread may call.
class RemoteSource final : public EngramSource {
 public:
  // Does the handshake. Errors of ConnectShards; kInvalidArgument for max_pending
  // outside 1..65535 or no attempts.
  static absl::StatusOr<std::unique_ptr<RemoteSource>> Create(
      const RemoteSourceOptions& options, Clock* clock);
  // Cancels what is in flight and waits for its end.
  ~RemoteSource() override;

  std::string_view name() const override { return "remote"; }
  std::span<const TableInfo> tables() const override { return infos_; }
  PendingRows Issue(size_t table, std::span<const uint32_t> row_ids,
                    std::span<std::byte> destination) override;
  absl::Status Wait(PendingRows pending, absl::Time deadline) override;
  EngramSourceStats stats() const override;

  // Lookups that were sent to another replica after one failed.
  uint64_t failovers() const;

 private:
  struct Shards;   // What callbacks share with the source.
  struct Request;  // One Issue.
  struct Batch;    // One lookup of a request.

  RemoteSource(const RemoteSourceOptions& options, std::unique_ptr<Shards> shards);

  static void StartAttempt(Shards* shards, Batch batch);
  static void FinishAttempt(Shards* shards, Batch batch, absl::Status status,
                            std::span<const std::byte> rows);

  const size_t max_pending_;
  const std::unique_ptr<Shards> shards_;
  std::vector<TableInfo> infos_;
  PendingTable<std::shared_ptr<Request>> pending_;
};

}  // namespace tessera::engram_store

#endif  // TESSERA_ENGRAM_STORE_CLIENT_REMOTE_SOURCE_H_
