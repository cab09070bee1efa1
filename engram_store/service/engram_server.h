// EngramServer: an EngramShard behind gRPC. It needs no coordinator: whoever knows its
// address and its token may ask. The wire contract is proto/engram.proto.
#ifndef TESSERA_ENGRAM_STORE_SERVICE_ENGRAM_SERVER_H_
#define TESSERA_ENGRAM_STORE_SERVICE_ENGRAM_SERVER_H_

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "absl/time/time.h"

#include "common/clock.h"
#include "engram_store/service/engram_shard.h"

namespace tessera::engram_store {

struct EngramServerOptions {
  // "host:port", where port 0 takes a free one, or "unix:path".
  std::string address = "127.0.0.1:0";
  // Callers must send it; empty: none is asked for.
  std::string auth_token;
  // Addresses beyond loopback are refused without it: rows and token travel unencrypted.
  bool allow_beyond_loopback = false;
  // Calls of one connection at a time; more wait in the client.
  int max_concurrent_calls = 256;
  int max_threads = 8;
};

// Serves from Create until Shutdown or destruction. Thread-safe.
class EngramServer {
 public:
  // kInvalidArgument: an address beyond loopback without leave; kUnavailable: it cannot
  // be bound.
  static absl::StatusOr<std::unique_ptr<EngramServer>> Create(
      const EngramServerOptions& options, Clock* clock,
      std::shared_ptr<const EngramShard> shard);
  virtual ~EngramServer() = default;

  virtual int port() const = 0;
  // Where clients reach it: the host of the options and port(), or the socket file.
  virtual std::string address() const = 0;
  virtual const EngramShard& shard() const = 0;

  // Refuses new calls, lets running ones finish for `grace`, then cancels them. Blocks.
  // Idempotent.
  virtual void Shutdown(absl::Duration grace) = 0;
};

}  // namespace tessera::engram_store

#endif  // TESSERA_ENGRAM_STORE_SERVICE_ENGRAM_SERVER_H_
