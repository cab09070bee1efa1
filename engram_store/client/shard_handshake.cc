#include "engram_store/client/shard_handshake.h"

#include <algorithm>
#include <limits>
#include <utility>

#include "common/log.h"
#include "common/status.h"
#include "common/status_macros.h"

namespace tessera::engram_store {
namespace {

// A status that another replica may not have; the others are mistakes of a set-up.
bool IsAbsence(const absl::Status& status) {
  return status.code() == absl::StatusCode::kUnavailable ||
         status.code() == absl::StatusCode::kDeadlineExceeded;
}

absl::Status CheckDescription(const EngramManifest& expected, ShardIndex shard,
                              const ShardDescription& found, const std::string& address) {
  TESSERA_RETURN_IF_ERROR(WithContext(CheckManifest(expected, found.manifest), address));
  if (found.shard != shard) {
    return StatusF(absl::StatusCode::kFailedPrecondition,
                   "{}: engram shard {} of {}, expected {} of {}", address,
                   found.shard.shard, found.shard.num_shards, shard.shard,
                   shard.num_shards);
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<ConnectedShards> ConnectShards(const ShardEndpoints& endpoints,
                                              Clock* clock) {
  if (endpoints.replicas.empty()) {
    return InvalidArgumentF("no engram shards are given");
  }
  const absl::Time deadline = clock->Now() + endpoints.timeout;
  ConnectedShards connected;
  connected.manifest = endpoints.expected;
  connected.max_rows_per_request = std::numeric_limits<uint32_t>::max();
  for (size_t i = 0; i < endpoints.replicas.size(); ++i) {
    const ShardIndex shard = {
        .shard = static_cast<uint32_t>(i),
        .num_shards = static_cast<uint32_t>(endpoints.replicas.size())};
    absl::Status last =
        InvalidArgumentF("engram shard {} of {} has no address", i, shard.num_shards);
    bool answered = false;
    std::vector<ConnectedReplica> replicas;
    for (const std::string& address : endpoints.replicas[i]) {
      ConnectedReplica replica;
      replica.client = ShardClient::Create(address, endpoints.auth_token,
                                           endpoints.max_response_bytes);
      absl::StatusOr<ShardDescription> found = replica.client->Describe(deadline);
      if (found.ok()) {
        TESSERA_RETURN_IF_ERROR(
            CheckDescription(connected.manifest, shard, *found, address));
        // From the first answer on all digests are known, and the others must have them.
        connected.manifest = found->manifest;
        connected.max_rows_per_request =
            std::min(connected.max_rows_per_request, found->max_rows_per_request);
        replica.description = std::make_unique<ShardDescription>(*std::move(found));
        answered = true;
      } else if (!IsAbsence(found.status())) {
        return found.status();
      } else {
        last = found.status();
        log::Warning("engram", "a replica does not answer",
                     {{"shard", i}, {"address", address}});
      }
      replicas.push_back(std::move(replica));
    }
    if (!answered) {
      return WithContext(last, fmt::format("no replica of engram shard {} answers", i));
    }
    connected.shards.push_back(std::move(replicas));
  }
  return connected;
}

}  // namespace tessera::engram_store
