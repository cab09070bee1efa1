#include "worker/service/step_service.h"

#include <atomic>
#include <deque>
#include <optional>
#include <thread>
#include <utility>

#include "absl/base/thread_annotations.h"

#include "common/mutex.h"
#include "common/status.h"
#include "common/status_macros.h"
#include "proto/constant_time.h"
#include "proto/internal_server.h"
#include "proto/step.grpc.pb.h"
#include "proto/step_convert.h"

namespace tessera::worker {
namespace {

namespace wire = ::tessera::worker::v1;
using Stream = grpc::ServerReaderWriter<wire::StepReply, wire::StepCommand>;

// One stream: this thread reads and submits; a second one waits and writes, so that a
// reply goes out while the next plan is on its way in.
class PlanStream {
 public:
  PlanStream(Stream* stream, proto::StepExecutor* executor, Clock* clock,
             absl::Duration step_timeout)
      : stream_(stream),
        executor_(executor),
        clock_(clock),
        step_timeout_(step_timeout) {}

  // Returns when the coordinator has ended the stream or the server shuts down.
  void Run() {
    std::thread writer([this] { WriteReplies(); });
    wire::StepCommand message;
    while (stream_->Read(&message)) {
      if (message.has_late()) {
        TakeLate(message.late());
        continue;
      }
      Outcome outcome;
      outcome.refused = SubmitPlan(message.plan());
      MutexLock lock(&mutex_);
      if (replies_due_.size() < kMaxRepliesDue) {
        replies_due_.push_back(std::move(outcome));
      }
    }
    executor_->Abort(absl::AbortedError("the coordinator's stream ended"));
    {
      MutexLock lock(&mutex_);
      ended_ = true;
    }
    writer.join();
  }

 private:
  // A plan that the executor refused is answered in its turn.
  struct Outcome {
    absl::Status refused;
  };
  // Plans beyond those in flight are refused, and one refusal ends the replies.
  static constexpr size_t kMaxRepliesDue = proto::StepExecutor::kMaxInFlight + 1;

  absl::Status SubmitPlan(const wire::StepPlan& message) {
    TESSERA_ASSIGN_OR_RETURN(proto::StepPlan plan, proto::FromWire(message));
    return executor_->Submit(std::move(plan));
  }

  // A late input has no reply of its own: one that cannot be taken fails its step.
  void TakeLate(const wire::LateInput& message) {
    absl::StatusOr<proto::LateInput> late = proto::FromWire(message);
    const absl::Status status =
        late.ok() ? executor_->SubmitLate(*std::move(late)) : late.status();
    if (!status.ok()) {
      executor_->Abort(status);
    }
  }

  std::optional<Outcome> NextReply() {
    MutexLock lock(&mutex_);
    const auto ready = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
      return ended_ || !replies_due_.empty();
    };
    mutex_.Await(Condition(&ready));
    if (ended_) {
      return std::nullopt;
    }
    Outcome outcome = std::move(replies_due_.front());
    replies_due_.pop_front();
    return outcome;
  }

  // Until the first failure: the group is torn down with it.
  void WriteReplies() {
    while (const std::optional<Outcome> outcome = NextReply()) {
      const absl::StatusOr<proto::StepResult> result =
          outcome->refused.ok() ? executor_->Wait(clock_->Now() + step_timeout_)
                                : outcome->refused;
      if (!result.ok()) {
        executor_->Abort(result.status());
      }
      if (!stream_->Write(proto::ReplyToWire(result)) || !result.ok()) {
        return;
      }
    }
  }

  Stream* const stream_;
  proto::StepExecutor* const executor_;
  Clock* const clock_;
  const absl::Duration step_timeout_;

  Mutex mutex_;
  std::deque<Outcome> replies_due_ ABSL_GUARDED_BY(mutex_);
  bool ended_ ABSL_GUARDED_BY(mutex_) = false;
};

class GrpcStepServer final : public StepServer, private wire::Worker::Service {
 public:
  GrpcStepServer(const StepServerOptions& options, proto::StepExecutor* executor,
                 Clock* clock)
      : options_(options), executor_(executor), clock_(clock) {}

  // A handler that waits for a step ends with it: the executor is aborted first.
  ~GrpcStepServer() override {
    executor_->Abort(absl::AbortedError("the worker shuts down"));
  }

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
  grpc::Status ExecuteSteps(grpc::ServerContext* context, Stream* stream) override {
    if (!proto::HasToken(*context, options_.auth_token)) {
      return {grpc::StatusCode::UNAUTHENTICATED, "token missing or wrong"};
    }
    if (busy_.exchange(true)) {
      return {grpc::StatusCode::FAILED_PRECONDITION, "another stream drives this rank"};
    }
    context->AddInitialMetadata(proto::kStreamAcceptedKey, "1");
    stream->SendInitialMetadata();
    PlanStream(stream, executor_, clock_, options_.step_timeout).Run();
    busy_.store(false);
    return grpc::Status::OK;
  }

  const StepServerOptions options_;
  proto::StepExecutor* const executor_;
  Clock* const clock_;
  std::atomic<bool> busy_ = false;
  std::unique_ptr<proto::InternalServer> server_;  // first to go: it calls the service
};

}  // namespace

absl::StatusOr<std::unique_ptr<StepServer>> StepServer::Create(
    const StepServerOptions& options, proto::StepExecutor* executor, Clock* clock) {
  auto server = std::make_unique<GrpcStepServer>(options, executor, clock);
  TESSERA_RETURN_IF_ERROR(server->Listen());
  return server;
}

}  // namespace tessera::worker
