#include "engram_store/service/engram_server.h"

#include <algorithm>
#include <atomic>
#include <string_view>
#include <utility>

#include "grpcpp/impl/service_type.h"
#include "grpcpp/resource_quota.h"
#include "grpcpp/security/server_credentials.h"
#include "grpcpp/server.h"
#include "grpcpp/server_builder.h"

#include "common/status.h"
#include "engram_store/service/engram_service.h"
#include "proto/listen_address.h"

namespace tessera::engram_store {
namespace {

// What a request carries beside its row ids: shard id, field tags.
constexpr uint64_t kRequestOverheadBytes = 4096;
constexpr int kMaxMetadataBytes = 16 << 10;

// Where clients find a server that was told to listen on `listen`: a socket file as it
// is, else "host:port" or "[host]:port" with the port that was bound.
std::string ReachedAt(std::string_view listen, int port) {
  return listen.starts_with("unix:")
             ? std::string(listen)
             : fmt::format("{}:{}", listen.substr(0, listen.rfind(':')), port);
}

class GrpcEngramServer final : public EngramServer {
 public:
  GrpcEngramServer(Clock* clock, std::string listen,
                   std::shared_ptr<const EngramShard> shard,
                   std::unique_ptr<grpc::Service> service)
      : clock_(clock),
        listen_(std::move(listen)),
        shard_(std::move(shard)),
        service_(std::move(service)) {}
  ~GrpcEngramServer() override { Shutdown(absl::ZeroDuration()); }

  // False when the address cannot be bound.
  bool Start(const EngramServerOptions& options) {
    grpc::ServerBuilder builder;
    builder.AddListeningPort(options.address, grpc::InsecureServerCredentials(), &port_);
    builder.RegisterService(service_.get());
    builder.SetMaxReceiveMessageSize(static_cast<int>(
        std::min<uint64_t>(uint64_t{shard_->max_rows_per_request()} * sizeof(uint32_t) +
                               kRequestOverheadBytes,
                           1u << 30)));
    builder.AddChannelArgument(GRPC_ARG_MAX_CONCURRENT_STREAMS,
                               options.max_concurrent_calls);
    builder.AddChannelArgument(GRPC_ARG_MAX_METADATA_SIZE, kMaxMetadataBytes);
    // A second server on the same port is an error, not a share of its connections.
    builder.AddChannelArgument(GRPC_ARG_ALLOW_REUSEPORT, 0);
    grpc::ResourceQuota quota("engram");
    quota.SetMaxThreads(std::max(options.max_threads, 2));
    builder.SetResourceQuota(quota);
    server_ = builder.BuildAndStart();
    return server_ != nullptr && port_ != 0;
  }

  int port() const override { return port_; }
  std::string address() const override { return ReachedAt(listen_, port_); }
  const EngramShard& shard() const override { return *shard_; }

  void Shutdown(absl::Duration grace) override {
    if (server_ != nullptr && !stopped_.exchange(true)) {
      server_->Shutdown(absl::ToChronoTime(clock_->Now() + grace));
      server_->Wait();
    }
  }

 private:
  Clock* const clock_;
  const std::string listen_;
  const std::shared_ptr<const EngramShard> shard_;
  const std::unique_ptr<grpc::Service> service_;
  int port_ = 0;
  std::atomic<bool> stopped_{false};
  std::unique_ptr<grpc::Server> server_;  // Last: stops before what it serves goes away.
};

}  // namespace

absl::StatusOr<std::unique_ptr<EngramServer>> EngramServer::Create(
    const EngramServerOptions& options, Clock* clock,
    std::shared_ptr<const EngramShard> shard) {
  if (!proto::IsLoopbackAddress(options.address) && !options.allow_beyond_loopback) {
    return InvalidArgumentF("engram address {} is beyond loopback", options.address);
  }
  auto service = MakeEngramService(shard, options.auth_token);
  auto server = std::make_unique<GrpcEngramServer>(clock, options.address,
                                                   std::move(shard), std::move(service));
  if (!server->Start(options)) {
    return UnavailableF("engram address {} cannot be bound", options.address);
  }
  return server;
}

}  // namespace tessera::engram_store
