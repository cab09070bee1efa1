#include "coordinator/cluster/cluster_service.h"

#include <chrono>
#include <string>
#include <utility>

#include <grpcpp/security/server_credentials.h>
#include <grpcpp/server.h>
#include <grpcpp/server_builder.h>

#include "common/log.h"
#include "common/status.h"
#include "common/status_macros.h"
#include "proto/cluster.grpc.pb.h"
#include "proto/cluster_convert.h"
#include "proto/constant_time.h"
#include "proto/listen_address.h"
#include "proto/status_convert.h"

namespace tessera::coordinator {
namespace {

class GrpcClusterServer final : public ClusterServer, private v1::Cluster::Service {
 public:
  GrpcClusterServer(const ClusterServerOptions& options, ClusterState* state)
      : options_(options), state_(state) {}

  ~GrpcClusterServer() override {
    if (server_ != nullptr) {
      server_->Shutdown(std::chrono::system_clock::time_point());
      server_->Wait();
    }
  }

  absl::Status Listen() {
    int port = 0;
    grpc::ServerBuilder builder;
    builder.AddListeningPort(options_.address, grpc::InsecureServerCredentials(), &port);
    builder.RegisterService(this);
    builder.SetMaxReceiveMessageSize(options_.max_message_bytes);
    server_ = builder.BuildAndStart();
    if (server_ == nullptr || port == 0) {
      return InvalidArgumentF("cannot listen on {}", options_.address);
    }
    address_ = fmt::format("{}:{}",
                           options_.address.substr(0, options_.address.rfind(':')), port);
    return absl::OkStatus();
  }

  const std::string& address() const override { return address_; }

 private:
  grpc::Status Register(grpc::ServerContext* context, const v1::RegisterRequest* request,
                        v1::RegisterResponse* response) override {
    if (!HasToken(*context)) {
      return {grpc::StatusCode::UNAUTHENTICATED, "token missing or wrong"};
    }
    const auto member = proto::FromWire(request->member());
    if (!member.ok()) {
      return proto::ToGrpcStatus(member.status());
    }
    const auto id = state_->Register(*member);
    if (!id.ok()) {
      log::Warning("cell", "a member was refused",
                   {{"rank", member->rank},
                    {"address", member->address},
                    {"error", std::string(id.status().message())}});
      return proto::ToGrpcStatus(id.status());
    }
    response->set_member_id(*id);
    response->set_heartbeat_period_ms(static_cast<uint32_t>(
        absl::ToInt64Milliseconds(state_->options().heartbeat_period)));
    return grpc::Status::OK;
  }

  grpc::Status Heartbeat(grpc::ServerContext* context,
                         const v1::HeartbeatRequest* request,
                         v1::HeartbeatResponse* /*response*/) override {
    if (!HasToken(*context)) {
      return {grpc::StatusCode::UNAUTHENTICATED, "token missing or wrong"};
    }
    return proto::ToGrpcStatus(state_->Heartbeat(request->member_id()));
  }

  bool HasToken(const grpc::ServerContext& context) const {
    const auto& metadata = context.client_metadata();
    const auto found = metadata.find(proto::kAuthTokenKey);
    return found != metadata.end() &&
           proto::EqualInConstantTime({found->second.data(), found->second.size()},
                                      options_.auth_token);
  }

  const ClusterServerOptions options_;
  ClusterState* const state_;
  std::string address_;
  std::unique_ptr<grpc::Server> server_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<ClusterServer>> ClusterServer::Create(
    const ClusterServerOptions& options, ClusterState* state) {
  if (!proto::IsLoopbackAddress(options.address)) {
    return InvalidArgumentF("{} is beyond loopback, which needs TLS", options.address);
  }
  if (options.auth_token.empty()) {
    return InvalidArgumentF("the cluster server needs a token");
  }
  auto server = std::make_unique<GrpcClusterServer>(options, state);
  TESSERA_RETURN_IF_ERROR(server->Listen());
  return server;
}

}  // namespace tessera::coordinator
