// InternalServer: the listening side of a service that only processes of one group call.
// It knows addresses and the group's token; what is served is its caller's.
#ifndef TESSERA_PROTO_INTERNAL_SERVER_H_
#define TESSERA_PROTO_INTERNAL_SERVER_H_

#include <memory>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include <grpcpp/impl/codegen/service_type.h>
#include <grpcpp/server.h>
#include <grpcpp/server_context.h>

namespace tessera::proto {

struct InternalServerOptions {
  std::string address;     // host:port on loopback; port 0: any free one
  std::string auth_token;  // of the group, not empty
  int max_message_bytes = 0;
};

// Thread-safe. Destroying it cancels the calls that run and waits for their handlers.
class InternalServer {
 public:
  // Listens and serves at once. kInvalidArgument: an address beyond loopback, which would
  // need TLS, one that is taken or is none, or no token. `service` must outlive the
  // server.
  static absl::StatusOr<std::unique_ptr<InternalServer>> Start(
      const InternalServerOptions& options, grpc::Service* service);
  InternalServer(const InternalServer&) = delete;
  InternalServer& operator=(const InternalServer&) = delete;
  ~InternalServer();

  // Where it listens, with the port that it got.
  const std::string& address() const { return address_; }

 private:
  InternalServer(std::unique_ptr<grpc::Server> server, std::string address);

  const std::unique_ptr<grpc::Server> server_;
  const std::string address_;
};

// Whether the caller knows `auth_token`; takes no longer for a near miss.
bool HasToken(const grpc::ServerContext& context, std::string_view auth_token);

}  // namespace tessera::proto

#endif  // TESSERA_PROTO_INTERNAL_SERVER_H_
