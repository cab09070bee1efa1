#include "proto/cluster_client.h"

#include <algorithm>
#include <thread>
#include <utility>

#include "absl/base/thread_annotations.h"
#include <grpc/support/time.h>
#include <grpcpp/client_context.h>
#include <grpcpp/create_channel.h>
#include <grpcpp/security/credentials.h>

#include "common/mutex.h"
#include "common/status.h"
#include "proto/cluster.grpc.pb.h"
#include "proto/cluster_convert.h"
#include "proto/constant_time.h"
#include "proto/listen_address.h"
#include "proto/status_convert.h"

namespace tessera::proto {
namespace {

namespace wire = ::tessera::coordinator::v1;

// Errors that another attempt may not meet.
bool MayPass(const absl::Status& status) {
  return absl::IsUnavailable(status) || absl::IsDeadlineExceeded(status) ||
         absl::IsResourceExhausted(status) || absl::IsCancelled(status);
}

class GrpcClusterClient final : public ClusterClient {
 public:
  GrpcClusterClient(const ClusterClientOptions& options, const ClusterMember& member,
                    RefusedHook refused)
      : options_(options),
        member_(ToWire(member)),
        refused_(std::move(refused)),
        stub_(wire::Cluster::NewStub(grpc::CreateChannel(
            options.coordinator_address, grpc::InsecureChannelCredentials()))) {
    thread_ = std::thread([this] { Run(); });
  }

  ~GrpcClusterClient() override {
    {
      MutexLock lock(&mutex_);
      stopping_ = true;
    }
    thread_.join();
  }

  absl::Status AwaitRegistered(absl::Time deadline) override {
    MutexLock lock(&mutex_);
    const auto known = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
      return registered_ || !refusal_.ok();
    };
    if (!mutex_.AwaitWithDeadline(Condition(&known), deadline)) {
      return DeadlineExceededF("not registered with {}", options_.coordinator_address);
    }
    return refusal_;
  }

 private:
  void Run() {
    absl::Duration delay = options_.retry_delay_min;
    while (true) {
      absl::Status status = Register();
      if (status.ok()) {
        delay = options_.retry_delay_min;
        status = BeatUntilError();
      }
      if (Stopping()) {
        return;
      }
      // A coordinator that restarted knows nobody.
      if (!MayPass(status) && !absl::IsNotFound(status)) {
        Refuse(status);
        return;
      }
      if (Pause(delay)) {
        return;
      }
      delay = std::min(2 * delay, options_.retry_delay_max);
    }
  }

  absl::Status Register() {
    grpc::ClientContext context;
    Prepare(context);
    wire::RegisterRequest request;
    *request.mutable_member() = member_;
    wire::RegisterResponse response;
    const absl::Status status =
        FromGrpcStatus(stub_->Register(&context, request, &response));
    if (status.ok()) {
      member_id_ = response.member_id();
      period_ = std::max(absl::Milliseconds(response.heartbeat_period_ms()),
                         options_.heartbeat_period_min);
      MutexLock lock(&mutex_);
      registered_ = true;
    }
    return status;
  }

  absl::Status BeatUntilError() {
    while (!Pause(period_)) {
      grpc::ClientContext context;
      Prepare(context);
      wire::HeartbeatRequest request;
      request.set_member_id(member_id_);
      wire::HeartbeatResponse response;
      const absl::Status status =
          FromGrpcStatus(stub_->Heartbeat(&context, request, &response));
      if (!status.ok()) {
        return status;
      }
    }
    return absl::OkStatus();
  }

  void Prepare(grpc::ClientContext& context) const {
    context.AddMetadata(kAuthTokenKey, options_.auth_token);
    // gRPC counts a timeout itself; its own clock is the one that its deadlines are
    // compared with.
    context.set_deadline(
        gpr_time_add(gpr_now(GPR_CLOCK_MONOTONIC),
                     gpr_time_from_nanos(absl::ToInt64Nanoseconds(options_.call_timeout),
                                         GPR_TIMESPAN)));
  }

  void Refuse(const absl::Status& status) {
    {
      MutexLock lock(&mutex_);
      refusal_ = status;
    }
    if (refused_) {
      refused_(status);
    }
  }

  bool Stopping() {
    MutexLock lock(&mutex_);
    return stopping_;
  }

  // True if the client is to stop.
  bool Pause(absl::Duration duration) {
    MutexLock lock(&mutex_);
    return mutex_.AwaitWithTimeout(Condition(&stopping_), duration);
  }

  const ClusterClientOptions options_;
  const wire::Member member_;
  const RefusedHook refused_;
  const std::unique_ptr<wire::Cluster::Stub> stub_;
  uint64_t member_id_ = 0;  // of the last registration; thread_ only
  absl::Duration period_;   // thread_ only

  Mutex mutex_;
  bool registered_ ABSL_GUARDED_BY(mutex_) = false;
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  absl::Status refusal_ ABSL_GUARDED_BY(mutex_);
  std::thread thread_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<ClusterClient>> ClusterClient::Create(
    const ClusterClientOptions& options, const ClusterMember& member,
    RefusedHook refused) {
  if (!IsLoopbackAddress(options.coordinator_address)) {
    return InvalidArgumentF("{} is beyond loopback, which needs TLS",
                            options.coordinator_address);
  }
  return std::make_unique<GrpcClusterClient>(options, member, std::move(refused));
}

}  // namespace tessera::proto
