// ShardClient: one shard address over gRPC. It knows no replicas, no routing and no
// retries; those are RemoteSource's. gRPC stays out of this header.
#ifndef TESSERA_ENGRAM_STORE_CLIENT_SHARD_CLIENT_H_
#define TESSERA_ENGRAM_STORE_CLIENT_SHARD_CLIENT_H_

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"

#include "engram_store/table/engram_manifest.h"
#include "engram_store/table/shared_segment.h"

namespace tessera::engram_store {

// What a shard says about itself.
struct ShardDescription {
  EngramManifest manifest;
  ShardIndex shard;
  uint32_t max_rows_per_request = 0;
  std::vector<SharedSegment> segments;  // one per table, or none: rows on disk
};

// Which rows to ask for; copied by NewLookup.
struct LookupArguments {
  std::string_view shard_id;
  uint32_t table = 0;
  std::span<const uint32_t> local_rows;
  absl::Time deadline = absl::InfiniteFuture();
};

// One lookup in flight. Thread-safe.
class LookupCall {
 public:
  // Called once, on a thread of gRPC; `rows` lives until it returns. Rows whose checksum
  // differs are kDataLoss.
  using Done =
      std::function<void(const absl::Status& status, std::span<const std::byte> rows)>;

  virtual ~LookupCall() = default;

  // Sends it; never blocks. At most once.
  virtual void Start(Done done) = 0;

  // Makes `done` come soon, with kCancelled if the rows did not arrive before. Before
  // Start it makes Start do so.
  virtual void Cancel() = 0;
};

// Thread-safe. Must outlive the `done` of every call it made, and must not be destroyed
// by one.
class ShardClient {
 public:
  // Connects lazily. Answers above `max_response_bytes` are errors. An empty token sends
  // none.
  static std::unique_ptr<ShardClient> Create(const std::string& address,
                                             const std::string& auth_token,
                                             uint64_t max_response_bytes);
  virtual ~ShardClient() = default;

  virtual const std::string& address() const = 0;

  // Blocks until the answer or the deadline. kUnavailable, kUnauthenticated,
  // kDeadlineExceeded; kDataLoss for an answer that makes no sense.
  virtual absl::StatusOr<ShardDescription> Describe(absl::Time deadline) = 0;

  // kUnavailable or another status unless the shard serves. Blocks likewise.
  virtual absl::Status CheckHealth(absl::Time deadline) = 0;

  virtual std::shared_ptr<LookupCall> NewLookup(const LookupArguments& arguments) = 0;
};

}  // namespace tessera::engram_store

#endif  // TESSERA_ENGRAM_STORE_CLIENT_SHARD_CLIENT_H_
