#include "proto/internal_server.h"

#include <chrono>
#include <utility>

#include "fmt/format.h"
#include <grpcpp/security/server_credentials.h>
#include <grpcpp/server_builder.h>

#include "common/status.h"
#include "proto/constant_time.h"
#include "proto/listen_address.h"

namespace tessera::proto {

absl::StatusOr<std::unique_ptr<InternalServer>> InternalServer::Start(
    const InternalServerOptions& options, grpc::Service* service) {
  if (!IsLoopbackAddress(options.address)) {
    return InvalidArgumentF("{} is beyond loopback, which needs TLS", options.address);
  }
  if (options.auth_token.empty()) {
    return InvalidArgumentF("a server of a group needs the group's token");
  }
  int port = 0;
  grpc::ServerBuilder builder;
  builder.AddListeningPort(options.address, grpc::InsecureServerCredentials(), &port);
  builder.RegisterService(service);
  builder.SetMaxReceiveMessageSize(options.max_message_bytes);
  std::unique_ptr<grpc::Server> server = builder.BuildAndStart();
  if (server == nullptr || port == 0) {
    return InvalidArgumentF("cannot listen on {}", options.address);
  }
  const std::string host = options.address.substr(0, options.address.rfind(':'));
  return std::unique_ptr<InternalServer>(
      new InternalServer(std::move(server), fmt::format("{}:{}", host, port)));
}

InternalServer::InternalServer(std::unique_ptr<grpc::Server> server, std::string address)
    : server_(std::move(server)), address_(std::move(address)) {}

InternalServer::~InternalServer() {
  server_->Shutdown(std::chrono::system_clock::time_point());
  server_->Wait();
}

bool HasToken(const grpc::ServerContext& context, std::string_view auth_token) {
  const auto& metadata = context.client_metadata();
  const auto found = metadata.find(kAuthTokenKey);
  return found != metadata.end() &&
         EqualInConstantTime({found->second.data(), found->second.size()}, auth_token);
}

}  // namespace tessera::proto
