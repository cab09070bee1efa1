#include "coordinator/cluster/cluster_service.h"

#include <string>
#include <utility>

#include "common/log.h"
#include "common/status.h"
#include "common/status_macros.h"
#include "proto/cluster.grpc.pb.h"
#include "proto/cluster_convert.h"
#include "proto/internal_server.h"
#include "proto/status_convert.h"

namespace tessera::coordinator {
namespace {

class GrpcClusterServer final : public ClusterServer, private v1::Cluster::Service {
 public:
  GrpcClusterServer(const ClusterServerOptions& options, ClusterState* state)
      : options_(options), state_(state) {}

  absl::Status Listen() {
    TESSERA_ASSIGN_OR_RETURN(
        server_,
        proto::InternalServer::Start({.address = options_.address,
                                      .auth_token = options_.auth_token,
                                      .max_message_bytes = options_.max_message_bytes},
                                     this));
    return absl::OkStatus();
  }

  const std::string& address() const override { return server_->address(); }

 private:
  grpc::Status Register(grpc::ServerContext* context, const v1::RegisterRequest* request,
                        v1::RegisterResponse* response) override {
    if (!proto::HasToken(*context, options_.auth_token)) {
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
    if (!proto::HasToken(*context, options_.auth_token)) {
      return {grpc::StatusCode::UNAUTHENTICATED, "token missing or wrong"};
    }
    return proto::ToGrpcStatus(state_->Heartbeat(request->member_id()));
  }

  const ClusterServerOptions options_;
  ClusterState* const state_;
  std::unique_ptr<proto::InternalServer> server_;  // first to go: it calls the service
};

}  // namespace

absl::StatusOr<std::unique_ptr<ClusterServer>> ClusterServer::Create(
    const ClusterServerOptions& options, ClusterState* state) {
  auto server = std::make_unique<GrpcClusterServer>(options, state);
  TESSERA_RETURN_IF_ERROR(server->Listen());
  return server;
}

}  // namespace tessera::coordinator
