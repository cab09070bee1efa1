// ApiGrpcServer: the gRPC door (proto/api.proto) in front of the same ApiService state as
// the HTTP door: same keys, same limits, same ValidatedRequest, same engine. It keeps a
// bounded number of events for a client that reads slowly and ends the call beyond it.
#ifndef TESSERA_COORDINATOR_API_GRPC_API_GRPC_SERVICE_H_
#define TESSERA_COORDINATOR_API_GRPC_API_GRPC_SERVICE_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "absl/status/statusor.h"
#include "absl/time/time.h"

#include "coordinator/api/api_service.h"
#include "coordinator/api/http/tls_options.h"

namespace tessera::coordinator {

struct ApiGrpcOptions {
  std::string host = "127.0.0.1";
  uint16_t port = 8001;  // 0: any free one, see port()
  int max_message_bytes = 4 << 20;
  int max_metadata_bytes = 16 << 10;
  int max_concurrent_streams = 1024;
  // Events that wait for a client; it is cut beyond.
  size_t max_queued_events = 8192;
  // With it every call comes inside TLS. Changed files are noticed within seconds.
  std::optional<TlsOptions> tls;
};

// Thread-safe. Destruction stops it.
class ApiGrpcServer {
 public:
  // Listens and serves at once. kUnavailable: the address is taken or is none;
  // kInvalidArgument: files of `tls`, as TlsContext::Create. `api` must outlive the
  // server and the engine's last event.
  static absl::StatusOr<std::unique_ptr<ApiGrpcServer>> Create(
      const ApiGrpcOptions& options, ApiService* api);
  ApiGrpcServer(const ApiGrpcServer&) = delete;
  ApiGrpcServer& operator=(const ApiGrpcServer&) = delete;
  ~ApiGrpcServer();

  uint16_t port() const;

  // Refuses new calls, lets running ones finish for `timeout`, then cancels them.
  // Idempotent.
  void Stop(absl::Duration timeout);

 private:
  struct Running;

  explicit ApiGrpcServer(std::unique_ptr<Running> running);

  std::unique_ptr<Running> running_;
};

}  // namespace tessera::coordinator

#endif  // TESSERA_COORDINATOR_API_GRPC_API_GRPC_SERVICE_H_
