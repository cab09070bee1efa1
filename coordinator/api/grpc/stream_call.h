// StreamCall: one streaming call of the gRPC door. Internal to that door.
#ifndef TESSERA_COORDINATOR_API_GRPC_STREAM_CALL_H_
#define TESSERA_COORDINATOR_API_GRPC_STREAM_CALL_H_

#include <cstddef>
#include <deque>
#include <memory>
#include <optional>
#include <string>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/time/time.h"
#include "grpcpp/support/server_callback.h"

#include "common/mutex.h"
#include "coordinator/api/api_service.h"
#include "coordinator/api/grpc/api_request_convert.h"
#include "proto/status_convert.h"

namespace tessera::coordinator {

inline constexpr char kGrpcApiService[] = "tessera.api.v1.ApiService";

// What the engine says to a client: the code, and a message of ours.
absl::Status PublicStatus(const absl::Status& status);

// One streaming call: a queue between the engine's thread and gRPC's. gRPC owns it until
// OnDone and the engine's sink shares it, so it keeps itself alive until both let go.
// `Event` is the message type.
template <typename Event>
class StreamCall : public grpc::ServerWriteReactor<Event>,
                   public RequestSink,
                   public std::enable_shared_from_this<StreamCall<Event>> {
 public:
  StreamCall(ApiService* api, const char* method, size_t max_queued)
      : api_(api),
        method_(method),
        max_queued_(max_queued),
        start_(api->context().clock->Now()) {}

  // Hands ownership to gRPC.
  static grpc::ServerWriteReactor<Event>* Release(std::shared_ptr<StreamCall> call) {
    StreamCall* raw = call.get();
    raw->self_ = std::move(call);
    return raw;
  }

  // Submits, where there is a grammar once it is compiled; a refusal ends the call. The
  // sink is this object.
  void Submit(ValidatedRequest request) {
    if (!request.grammar_spec().has_value()) {
      SubmitNow(std::move(request));
      return;
    }
    GrammarPool* const grammars = api_->context().grammars;
    if (grammars == nullptr) {
      End(absl::UnimplementedError("this server compiles no grammars"));
      return;
    }
    const GrammarSpec spec = *request.grammar_spec();
    grammars->Compile(
        spec, [self = this->shared_from_this(),
               request = std::move(request)](absl::StatusOr<GrammarPtr> grammar) mutable {
          if (grammar.ok()) {
            request.SetGrammar(*std::move(grammar));
          } else if (!request.grammar_spec()->advisory) {
            self->End(grammar.status());
            return;
          }
          self->SubmitNow(std::move(request));
        });
  }

  void SubmitNow(ValidatedRequest request) {
    const std::string id = request.request_id();
    {
      MutexLock lock(&mutex_);
      if (final_.has_value()) {
        return;  // The client left while the grammar was compiled.
      }
    }
    const absl::Status status =
        api_->context().engine->Submit(std::move(request), this->shared_from_this());
    if (!status.ok()) {
      End(PublicStatus(status));
      return;
    }
    bool left = false;
    {
      MutexLock lock(&mutex_);
      request_id_ = id;
      left = abandoned_;
    }
    if (left) {  // Before the id was there to cancel by.
      api_->context().engine->Cancel(id);
    }
  }

  // Ends the call once what is queued was written. The first status counts.
  void End(const absl::Status& status) {
    {
      MutexLock lock(&mutex_);
      if (!final_.has_value()) {
        final_ = status;
      }
    }
    Pump();
  }

  void OnError(const absl::Status& status) override { End(PublicStatus(status)); }

  void OnDone(const RequestUsage& usage) override {
    Event event;
    WriteUsage(usage, event.mutable_usage());
    Push(std::move(event));
    End(absl::OkStatus());
  }

  // gRPC's side.
  void OnWriteDone(bool ok) override {
    {
      MutexLock lock(&mutex_);
      writing_ = false;
    }
    if (!ok) {
      Abandon(absl::CancelledError("the client went away"));
    } else {
      Pump();
    }
  }

  void OnCancel() override { Abandon(absl::CancelledError("the call was cancelled")); }

  void OnDone() override {
    std::string code;
    {
      MutexLock lock(&mutex_);
      code = absl::StatusCodeToString(final_.value_or(absl::CancelledError("")).code());
    }
    api_->context().observer->OnGrpcEnd(kGrpcApiService, method_, code,
                                        api_->context().clock->Now() - start_);
    self_.reset();
  }

 protected:
  const ApiContext& context() const { return api_->context(); }

  void Push(Event event) {
    bool overflow = false;
    {
      MutexLock lock(&mutex_);
      if (final_.has_value()) {
        return;
      }
      overflow = queue_.size() >= max_queued_;
      if (!overflow) {
        queue_.push_back(std::move(event));
      }
    }
    if (overflow) {
      Abandon(absl::ResourceExhaustedError("the client reads too slowly"));
    } else {
      Pump();
    }
  }

 private:
  // Drops what is queued, ends the call and cancels the request.
  void Abandon(const absl::Status& status) {
    std::string id;
    {
      MutexLock lock(&mutex_);
      queue_.clear();
      if (!final_.has_value()) {
        final_ = status;
        abandoned_ = true;
        id = request_id_;
      }
    }
    if (!id.empty()) {
      api_->context().observer->OnClientDisconnect();
      api_->context().engine->Cancel(id);
    }
    Pump();
  }

  // Starts the next write or the finish. The decision is made under the lock, the call
  // outside: only one thread can have set `writing_` or `finished_`.
  void Pump() {
    std::optional<absl::Status> finish;
    {
      MutexLock lock(&mutex_);
      if (writing_ || finished_) {
        return;
      }
      if (!queue_.empty()) {
        current_ = std::move(queue_.front());
        queue_.pop_front();
        writing_ = true;
      } else if (final_.has_value()) {
        finished_ = true;
        finish = final_;
      } else {
        return;
      }
    }
    if (finish.has_value()) {
      this->Finish(proto::ToGrpcStatus(*finish));
    } else {
      this->StartWrite(&current_);
    }
  }

  ApiService* const api_;
  const char* const method_;
  const size_t max_queued_;
  const absl::Time start_;
  std::shared_ptr<StreamCall> self_;
  Event current_;  // belongs to the write under way

  Mutex mutex_;
  std::deque<Event> queue_ ABSL_GUARDED_BY(mutex_);
  std::string request_id_ ABSL_GUARDED_BY(mutex_);
  std::optional<absl::Status> final_ ABSL_GUARDED_BY(mutex_);
  bool abandoned_ ABSL_GUARDED_BY(mutex_) = false;  // the client left before the end
  bool writing_ ABSL_GUARDED_BY(mutex_) = false;
  bool finished_ ABSL_GUARDED_BY(mutex_) = false;
};

}  // namespace tessera::coordinator

#endif  // TESSERA_COORDINATOR_API_GRPC_STREAM_CALL_H_
