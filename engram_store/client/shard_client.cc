#include "engram_store/client/shard_client.h"

#include <algorithm>
#include <limits>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "grpcpp/channel.h"
#include "grpcpp/client_context.h"
#include "grpcpp/create_channel.h"
#include "grpcpp/security/credentials.h"

#include "common/mutex.h"
#include "common/status.h"
#include "common/status_macros.h"
#include "engram_store/table/crc32c.h"
#include "engram_store/table/manifest_convert.h"
#include "proto/engram.grpc.pb.h"
#include "proto/status_convert.h"

namespace tessera::engram_store {
namespace {

using Stub = engram::v1::EngramShardService::Stub;

// A shard that was restarted is found again within about a second.
constexpr int kFirstReconnectMs = 20;
constexpr int kMaxReconnectMs = 1000;
// gRPC gives a connection attempt the "minimal backoff" to succeed: a busy host needs
// more than a few milliseconds.
constexpr int kConnectMs = 2000;

void PrepareContext(grpc::ClientContext* context, const std::string& token,
                    absl::Time deadline) {
  if (!token.empty()) {
    context->AddMetadata("authorization", "Bearer " + token);
  }
  if (deadline != absl::InfiniteFuture()) {
    context->set_deadline(absl::ToChronoTime(deadline));
  }
}

// How many calls of a client exist. A ClientContext holds the channel, and a channel
// whose last holder is a callback would be closed on a thread of gRPC, which then waits
// for itself (it aborts in gRPC 1.51); so the client outwaits its calls.
class LiveCalls {
 public:
  void Add() {
    MutexLock lock(&mutex_);
    ++count_;
  }
  void Remove() {
    MutexLock lock(&mutex_);
    --count_;
  }
  void AwaitNone() {
    MutexLock lock(&mutex_);
    const auto none = [this]()
                          ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return count_ == 0; };
    mutex_.Await(Condition(&none));
  }

 private:
  Mutex mutex_;
  int64_t count_ ABSL_GUARDED_BY(mutex_) = 0;
};

// Counts for as long as it lives.
class LiveCall {
 public:
  explicit LiveCall(LiveCalls* calls) : calls_(calls) { calls_->Add(); }
  ~LiveCall() { calls_->Remove(); }
  LiveCall(const LiveCall&) = delete;
  LiveCall& operator=(const LiveCall&) = delete;

 private:
  LiveCalls* const calls_;
};

class GrpcLookupCall final : public LookupCall,
                             public std::enable_shared_from_this<GrpcLookupCall> {
 public:
  GrpcLookupCall(LiveCalls* calls, Stub* stub, const std::string& token,
                 const LookupArguments& arguments)
      : live_(calls), stub_(stub) {
    PrepareContext(&context_, token, arguments.deadline);
    request_.set_shard_id(std::string(arguments.shard_id));
    request_.set_table(arguments.table);
    request_.set_row_ids(RowIdsToBytes(arguments.local_rows));
  }

  void Start(Done done) override {
    done_ = std::move(done);
    stub_->async()->Lookup(
        &context_, &request_, &response_,
        [self = shared_from_this()](grpc::Status status) { self->Finish(status); });
  }

  void Cancel() override { context_.TryCancel(); }

 private:
  void Finish(const grpc::Status& grpc_status) {
    // Moved out first: what it refers to may refer to this call.
    const Done done = std::move(done_);
    const std::span<const std::byte> rows = std::as_bytes(std::span(response_.rows()));
    absl::Status status = proto::FromGrpcStatus(grpc_status);
    if (status.ok() && Crc32c(rows) != response_.crc32c()) {
      status = DataLossF("{} bytes of engram rows have another checksum than was sent",
                         rows.size());
    }
    done(status, status.ok() ? rows : std::span<const std::byte>());
  }

  const LiveCall live_;  // First, so that it ends after the context.
  Stub* const stub_;
  grpc::ClientContext context_;
  engram::v1::LookupRequest request_;
  engram::v1::LookupResponse response_;
  Done done_;
};

absl::StatusOr<ShardDescription> DescriptionFromProto(
    const engram::v1::DescribeResponse& proto) {
  ShardDescription description;
  TESSERA_ASSIGN_OR_RETURN(description.manifest, ManifestFromProto(proto.manifest()));
  description.shard = {.shard = proto.shard(), .num_shards = proto.num_shards()};
  description.max_rows_per_request = proto.max_rows_per_request();
  if (description.shard.shard >= description.shard.num_shards ||
      description.max_rows_per_request == 0 ||
      (proto.segments_size() != 0 &&
       proto.segments_size() != proto.manifest().tables_size())) {
    return DataLossF(
        "engram shard {} of {} with {} rows per request and {} segments for {} "
        "tables",
        proto.shard(), proto.num_shards(), proto.max_rows_per_request(),
        proto.segments_size(), proto.manifest().tables_size());
  }
  for (const engram::v1::Segment& in : proto.segments()) {
    SharedSegment segment{.process = proto.process_id(),
                          .file = in.file(),
                          .nonce = {},
                          .shard = description.shard};
    if (in.nonce().size() != segment.nonce.size()) {
      return DataLossF("engram segment nonce of {} bytes", in.nonce().size());
    }
    std::copy(in.nonce().begin(), in.nonce().end(), segment.nonce.begin());
    description.segments.push_back(segment);
  }
  return description;
}

class GrpcShardClient final : public ShardClient {
 public:
  GrpcShardClient(const std::string& address, const std::string& auth_token,
                  uint64_t max_response_bytes)
      : address_(address), auth_token_(auth_token) {
    grpc::ChannelArguments arguments;
    arguments.SetMaxReceiveMessageSize(static_cast<int>(
        std::min<uint64_t>(max_response_bytes, std::numeric_limits<int32_t>::max())));
    arguments.SetInt(GRPC_ARG_INITIAL_RECONNECT_BACKOFF_MS, kFirstReconnectMs);
    arguments.SetInt(GRPC_ARG_MIN_RECONNECT_BACKOFF_MS, kConnectMs);
    arguments.SetInt(GRPC_ARG_MAX_RECONNECT_BACKOFF_MS, kMaxReconnectMs);
    // Shards are addressed directly; an http_proxy of the environment is not for them.
    arguments.SetInt(GRPC_ARG_ENABLE_HTTP_PROXY, 0);
    // One connection per client, so that a dead one is noticed by its owner.
    arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
    stub_ = engram::v1::EngramShardService::NewStub(grpc::CreateCustomChannel(
        address, grpc::InsecureChannelCredentials(), arguments));
  }

  ~GrpcShardClient() override { live_calls_.AwaitNone(); }

  const std::string& address() const override { return address_; }

  absl::StatusOr<ShardDescription> Describe(absl::Time deadline) override {
    grpc::ClientContext context;
    PrepareContext(&context, auth_token_, deadline);
    engram::v1::DescribeResponse response;
    TESSERA_RETURN_IF_ERROR(WithContext(
        proto::FromGrpcStatus(stub_->Describe(&context, {}, &response)), address_));
    absl::StatusOr<ShardDescription> description = DescriptionFromProto(response);
    if (!description.ok()) {
      return WithContext(description.status(), address_);
    }
    return description;
  }

  absl::Status CheckHealth(absl::Time deadline) override {
    grpc::ClientContext context;
    PrepareContext(&context, auth_token_, deadline);
    engram::v1::HealthResponse response;
    TESSERA_RETURN_IF_ERROR(WithContext(
        proto::FromGrpcStatus(stub_->Health(&context, {}, &response)), address_));
    return response.serving()
               ? absl::OkStatus()
               : UnavailableF("{}: the engram shard is not serving", address_);
  }

  std::shared_ptr<LookupCall> NewLookup(const LookupArguments& arguments) override {
    return std::make_shared<GrpcLookupCall>(&live_calls_, stub_.get(), auth_token_,
                                            arguments);
  }

 private:
  const std::string address_;
  const std::string auth_token_;
  std::unique_ptr<Stub> stub_;
  LiveCalls live_calls_;
};

}  // namespace

std::unique_ptr<ShardClient> ShardClient::Create(const std::string& address,
                                                 const std::string& auth_token,
                                                 uint64_t max_response_bytes) {
  return std::make_unique<GrpcShardClient>(address, auth_token, max_response_bytes);
}

}  // namespace tessera::engram_store
