#include "coordinator/cluster/step_client.h"

#include <chrono>
#include <deque>
#include <thread>
#include <utility>

#include "absl/base/thread_annotations.h"
#include <grpcpp/client_context.h>
#include <grpcpp/create_channel.h>
#include <grpcpp/security/credentials.h>

#include "common/mutex.h"
#include "common/status.h"
#include "common/status_macros.h"
#include "proto/constant_time.h"
#include "proto/listen_address.h"
#include "proto/status_convert.h"
#include "proto/step.grpc.pb.h"
#include "proto/step_convert.h"

namespace tessera::coordinator {
namespace {

namespace wire = ::tessera::worker::v1;

class GrpcStepExecutor final : public proto::StepExecutor {
 public:
  explicit GrpcStepExecutor(const StepClientOptions& options) : options_(options) {}

  ~GrpcStepExecutor() override {
    Abort(absl::AbortedError("step client destroyed"));
    if (reader_.joinable()) {
      reader_.join();
    }
  }

  absl::Status Connect(Clock* clock);

  absl::Status Submit(proto::StepPlan plan) override;
  absl::Status SubmitLate(proto::LateInput late) override;
  absl::StatusOr<proto::StepResult> Wait(absl::Time deadline) override;
  void Abort(absl::Status reason) override;

 private:
  void ReadReplies();
  absl::Status Write(const wire::StepCommand& command);
  // The first end stays.
  void End(absl::Status status) {
    MutexLock lock(&mutex_);
    if (end_.ok()) {
      end_ = std::move(status);
    }
  }

  const StepClientOptions options_;
  std::unique_ptr<wire::Worker::Stub> stub_;
  grpc::ClientContext context_;
  std::unique_ptr<grpc::ClientReaderWriter<wire::StepCommand, wire::StepReply>> stream_;
  std::thread reader_;

  Mutex mutex_;
  bool accepted_ ABSL_GUARDED_BY(mutex_) = false;
  int in_flight_ ABSL_GUARDED_BY(mutex_) = 0;  // submitted and not fetched
  std::deque<proto::StepResult> results_ ABSL_GUARDED_BY(mutex_);
  absl::Status end_ ABSL_GUARDED_BY(mutex_);
};

// The reader's first act is to wait for the worker's metadata, which says that it took
// the stream.
absl::Status GrpcStepExecutor::Connect(Clock* clock) {
  grpc::ChannelArguments arguments;
  arguments.SetMaxReceiveMessageSize(options_.max_message_bytes);
  const auto channel = grpc::CreateCustomChannel(
      options_.address, grpc::InsecureChannelCredentials(), arguments);
  if (!channel->WaitForConnected(
          absl::ToChronoTime(clock->Now() + options_.connect_timeout))) {
    return UnavailableF("no worker at {} within {}", options_.address,
                        absl::FormatDuration(options_.connect_timeout));
  }
  stub_ = wire::Worker::NewStub(channel);
  context_.AddMetadata(proto::kAuthTokenKey, options_.auth_token);
  stream_ = stub_->ExecuteSteps(&context_);
  reader_ = std::thread([this] { ReadReplies(); });
  MutexLock lock(&mutex_);
  const auto answered = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    return accepted_ || !end_.ok();
  };
  if (!mutex_.AwaitWithTimeout(Condition(&answered), options_.connect_timeout)) {
    return UnavailableF("the worker at {} did not take the stream within {}",
                        options_.address, absl::FormatDuration(options_.connect_timeout));
  }
  return end_;
}

void GrpcStepExecutor::ReadReplies() {
  stream_->WaitForInitialMetadata();
  wire::StepReply message;
  {
    // A refused stream has metadata as well; its status comes with the first Read.
    const auto& metadata = context_.GetServerInitialMetadata();
    MutexLock lock(&mutex_);
    accepted_ = metadata.find(proto::kStreamAcceptedKey) != metadata.end();
  }
  while (stream_->Read(&message)) {
    auto result = proto::ReplyFromWire(message);
    if (!result.ok()) {
      End(result.status());
      context_.TryCancel();
      break;
    }
    MutexLock lock(&mutex_);
    if (results_.size() >= static_cast<size_t>(in_flight_)) {
      end_ = InternalF("a result that no plan asked for, of step {}", result->step);
      context_.TryCancel();
      break;
    }
    results_.push_back(std::move(result).value());
  }
  const absl::Status status = proto::FromGrpcStatus(stream_->Finish());
  End(status.ok() || absl::IsCancelled(status)
          ? UnavailableF("the plan stream of {} ended", options_.address)
          : WithContext(status, options_.address));
}

absl::Status GrpcStepExecutor::Submit(proto::StepPlan plan) {
  {
    MutexLock lock(&mutex_);
    if (!end_.ok()) {
      return end_;
    }
    if (in_flight_ >= kMaxInFlight) {
      return StatusF(absl::StatusCode::kResourceExhausted, "{}: {} plans in flight",
                     options_.address, in_flight_);
    }
    ++in_flight_;
  }
  wire::StepCommand command;
  *command.mutable_plan() = proto::ToWire(plan);
  return Write(command);
}

absl::Status GrpcStepExecutor::SubmitLate(proto::LateInput late) {
  {
    MutexLock lock(&mutex_);
    if (!end_.ok()) {
      return end_;
    }
    if (in_flight_ == static_cast<int>(results_.size())) {
      return StatusF(absl::StatusCode::kFailedPrecondition,
                     "{}: late input of step {}, which is not in flight",
                     options_.address, late.step);
    }
  }
  wire::StepCommand command;
  *command.mutable_late() = proto::ToWire(late);
  return Write(command);
}

absl::Status GrpcStepExecutor::Write(const wire::StepCommand& command) {
  if (!stream_->Write(command)) {
    End(UnavailableF("the plan stream of {} broke", options_.address));
    MutexLock lock(&mutex_);
    return end_;
  }
  return absl::OkStatus();
}

absl::StatusOr<proto::StepResult> GrpcStepExecutor::Wait(absl::Time deadline) {
  MutexLock lock(&mutex_);
  if (end_.ok() && in_flight_ == 0) {
    return StatusF(absl::StatusCode::kFailedPrecondition, "{}: no plan in flight",
                   options_.address);
  }
  const auto ready = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    return !results_.empty() || !end_.ok();
  };
  if (!mutex_.AwaitWithDeadline(Condition(&ready), deadline)) {
    return DeadlineExceededF("{}: step not finished", options_.address);
  }
  if (results_.empty()) {
    return end_;
  }
  proto::StepResult result = std::move(results_.front());
  results_.pop_front();
  --in_flight_;
  return result;
}

void GrpcStepExecutor::Abort(absl::Status reason) {
  {
    MutexLock lock(&mutex_);
    results_.clear();
    if (end_.ok()) {
      end_ = StatusF(absl::StatusCode::kAborted, "{}: {}", options_.address,
                     std::string_view(reason.message().data(), reason.message().size()));
    }
  }
  context_.TryCancel();
}

}  // namespace

absl::StatusOr<std::unique_ptr<proto::StepExecutor>> ConnectStepExecutor(
    const StepClientOptions& options, Clock* clock) {
  if (!proto::IsLoopbackAddress(options.address)) {
    return InvalidArgumentF("{} is beyond loopback, which needs TLS", options.address);
  }
  auto executor = std::make_unique<GrpcStepExecutor>(options);
  TESSERA_RETURN_IF_ERROR(executor->Connect(clock));
  return executor;
}

}  // namespace tessera::coordinator
