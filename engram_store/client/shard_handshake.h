// The handshake of a client with all shards of a model: who is there, and are they what
// this client expects. Remote and shared memory sources start with it.
#ifndef TESSERA_ENGRAM_STORE_CLIENT_SHARD_HANDSHAKE_H_
#define TESSERA_ENGRAM_STORE_CLIENT_SHARD_HANDSHAKE_H_

#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"

#include "common/clock.h"
#include "engram_store/client/shard_client.h"
#include "engram_store/table/engram_manifest.h"

namespace tessera::engram_store {

struct ShardEndpoints {
  // [S][replicas]: "host:port" of every replica of every shard.
  std::vector<std::vector<std::string>> replicas;
  std::string auth_token;
  // Digests may be empty; then all shards must still agree on them.
  EngramManifest expected;
  absl::Duration timeout = absl::Seconds(5);  // for the whole handshake
  uint64_t max_response_bytes = uint64_t{64} << 20;
};

struct ConnectedReplica {
  std::unique_ptr<ShardClient> client;
  // Absent when it did not answer. It may be used nevertheless: every lookup names the
  // shard id.
  std::unique_ptr<ShardDescription> description;
};

struct ConnectedShards {
  std::vector<std::vector<ConnectedReplica>> shards;  // [S][replicas]
  EngramManifest manifest;                            // with digests
  uint32_t max_rows_per_request = 0;                  // the least of all
};

// Asks every replica. kInvalidArgument: no shards or a shard without address;
// kUnavailable: no replica of a shard answers; kUnauthenticated; as CheckManifest when
// one that answers is of another model or digest, and kFailedPrecondition when it is
// another shard. Blocks up to `timeout`.
absl::StatusOr<ConnectedShards> ConnectShards(const ShardEndpoints& endpoints,
                                              Clock* clock);

}  // namespace tessera::engram_store

#endif  // TESSERA_ENGRAM_STORE_CLIENT_SHARD_HANDSHAKE_H_
