// SharedMemorySource: the rows of shards that run on this host, mapped read-only into
// this process. The handshake over gRPC says which segments there are; from then on no
// call is made. A segment is sealed, so that it can neither change nor shrink, and it
// stays mapped when its shard dies.
#ifndef TESSERA_ENGRAM_STORE_CLIENT_SHARED_MEMORY_SOURCE_H_
#define TESSERA_ENGRAM_STORE_CLIENT_SHARED_MEMORY_SOURCE_H_

#include <memory>

#include "absl/status/statusor.h"

#include "common/clock.h"
#include "engram_store/client/memory_source.h"
#include "engram_store/client/shard_handshake.h"

namespace tessera::engram_store {

// Maps one replica of every shard, the first that can be mapped. Errors of ConnectShards,
// and of MapSharedTable where no replica of a shard can be mapped: kUnavailable for
// shards of another host, container or user (use RemoteSource), kDataLoss for a segment
// that is not what it should be.
absl::StatusOr<std::unique_ptr<MemorySource>> CreateSharedMemorySource(
    const ShardEndpoints& endpoints, size_t max_pending, Clock* clock);

}  // namespace tessera::engram_store

#endif  // TESSERA_ENGRAM_STORE_CLIENT_SHARED_MEMORY_SOURCE_H_
