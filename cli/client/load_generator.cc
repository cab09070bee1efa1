#include "cli/client/load_generator.h"

#include <algorithm>
#include <cerrno>
#include <deque>
#include <memory>
#include <system_error>
#include <thread>
#include <utility>

#include "absl/time/time.h"
#include "cli/client/load_stream.h"
#include "cli/client/openai_client.h"
#include "nlohmann/json.hpp"
#include <poll.h>
#include <sys/resource.h>

#include "common/mutex.h"
#include "common/status.h"
#include "common/status_macros.h"

namespace tessera::cli {
namespace {

using nlohmann::json;

// What is the same for every request of a run.
struct RunContext {
  const LoadRunOptions& options;
  json extra;
  absl::Time start;
  Clock* clock;
};

// Takes the chunks of one answer as they come.
class StreamTimer {
 public:
  StreamTimer(const RunContext& context, absl::Time sent, RequestRecord* record)
      : context_(context), sent_(sent), last_(sent), record_(record) {}

  void Take(const json& chunk) {
    const ChunkContent content = ReadChunk(chunk);
    const auto tokens_so_far = UsageCount(chunk, "completion_tokens");
    // An answer may be its end alone, when the model has nothing to say.
    if (content.brings_tokens || (content.finishes && pieces_ == 0)) {
      const absl::Time now = context_.clock->Now();
      if (pieces_++ == 0) {
        record_->time_to_first_token = now - sent_;
      } else {
        record_->gaps.push_back(now - last_);
        record_->gap_tokens.push_back(
            tokens_so_far.has_value() && usage_tokens_.has_value()
                ? static_cast<int32_t>(*tokens_so_far - *usage_tokens_)
                : content.num_tokens);
      }
      last_ = now;
    }
    if (context_.options.keep_texts) {
      record_->text += content.text;
    }
    record_->input_tokens =
        UsageCount(chunk, "prompt_tokens").value_or(record_->input_tokens);
    if (tokens_so_far.has_value()) {
      usage_tokens_ = tokens_so_far;
    }
  }

  void Finish(const StreamEnd& end) {
    record_->end_to_end = last_ - sent_;
    // A server without usage is counted by pieces of text.
    record_->output_tokens = usage_tokens_.value_or(pieces_);
    record_->error_kind = end.kind;
    record_->error = std::string(end.status.message());
    if (end.status.ok() && pieces_ == 0) {
      record_->error_kind = "no tokens";
      record_->error = "the answer held no text";
    }
  }

 private:
  const RunContext& context_;
  const absl::Time sent_;
  absl::Time last_;
  RequestRecord* const record_;
  std::optional<int64_t> usage_tokens_;
  int64_t pieces_ = 0;
};

// A request on its way from the plan to a thread.
struct Ticket {
  size_t index = 0;
  absl::Time dispatched;
  bool held_back = false;  // No place was free when its time came.
};

// The threads of a run and what they share. The caller's thread dispatches; a thread of
// the crew sends a request and reads its answer. It grows by a thread when a request
// finds none idle, up to its limit. Thread-safe, but Dispatch and Join are the caller's.
class Crew {
 public:
  Crew(const RunContext& context, std::span<const PlannedRequest> requests, LoadRun* run)
      : context_(context),
        requests_(requests),
        run_(run),
        limit_(static_cast<size_t>(
            context.options.max_concurrency.value_or(kConcurrencyMax))) {}

  // False: the run has ended early.
  absl::StatusOr<bool> Dispatch(size_t index) {
    bool grow = false;
    bool stopped = false;
    {
      MutexLock lock(&mutex_);
      tickets_.push_back({index, context_.clock->Now(), false});
      const bool busy = tickets_.size() > idle_;
      grow = busy && threads_.size() < limit_;
      tickets_.back().held_back = busy && !grow;
      num_held_back_ += busy && !grow ? 1 : 0;
      stopped = stopped_;
    }
    if (grow) {
      TESSERA_RETURN_IF_ERROR(AddThread());
    }
    return !stopped;
  }

  void Join() {
    {
      MutexLock lock(&mutex_);
      closed_ = true;
    }
    for (std::thread& thread : threads_) {
      thread.join();
    }
    MutexLock lock(&mutex_);
    run_->max_concurrent_requests = most_running_;
    run_->num_held_back = num_held_back_;
    run_->duration = std::max(last_end_ - context_.start, absl::ZeroDuration());
  }

  void Stop() {
    MutexLock lock(&mutex_);
    stopped_ = true;
  }

 private:
  absl::Status AddThread() {
    TESSERA_ASSIGN_OR_RETURN(
        std::shared_ptr<OpenAiClient> client,
        OpenAiClient::Create(context_.options.http, context_.options.api_key));
    // No more threads to be had is as good as a limit that was set, once there are some.
    try {
      threads_.emplace_back([this, client] { Work(client.get()); });
    } catch (const std::system_error& error) {
      if (threads_.empty()) {
        return StatusF(absl::StatusCode::kResourceExhausted, "no thread: {}",
                       error.what());
      }
      limit_ = threads_.size();
    }
    return absl::OkStatus();
  }

  std::optional<Ticket> Take() {
    MutexLock lock(&mutex_);
    ++idle_;
    mutex_.Await(Condition(
        +[](Crew* crew) ABSL_EXCLUSIVE_LOCKS_REQUIRED(crew->mutex_) {
          return crew->stopped_ || crew->closed_ || !crew->tickets_.empty();
        },
        this));
    --idle_;
    if (stopped_ || tickets_.empty()) {
      return std::nullopt;
    }
    const Ticket ticket = tickets_.front();
    tickets_.pop_front();
    most_running_ = std::max(most_running_, ++running_);
    return ticket;
  }

  void Work(OpenAiClient* client) {
    while (const auto ticket = Take()) {
      RequestRecord* record = &run_->records[ticket->index];
      Send(*ticket, client, record);
      MutexLock lock(&mutex_);
      --running_;
      last_end_ = std::max(last_end_, context_.clock->Now());
      stopped_ = stopped_ || record->error_kind == "cancelled";
    }
  }

  void Send(const Ticket& ticket, OpenAiClient* client, RequestRecord* record) {
    const PlannedRequest& request = requests_[ticket.index];
    const LoadRunOptions& options = context_.options;
    const json body = LoadRequestBody(options, context_.extra, request);
    record->input_tokens = static_cast<int64_t>(request.prompt_ids.size());
    record->sent = true;
    const absl::Time sent = context_.clock->Now();
    record->start = sent - context_.start;
    const absl::Time ready = ticket.held_back ? ticket.dispatched : sent;
    record->generator_lag = ready - (context_.start + record->arrival);
    StreamTimer timer(context_, sent, record);
    timer.Finish(client->Stream(options.endpoint, body, [&timer](const json& chunk) {
      timer.Take(chunk);
      return true;
    }));
  }

  const RunContext& context_;
  const std::span<const PlannedRequest> requests_;
  LoadRun* const run_;
  size_t limit_;  // The caller's, as the next.
  std::vector<std::thread> threads_;
  Mutex mutex_;
  std::deque<Ticket> tickets_ ABSL_GUARDED_BY(mutex_);
  size_t idle_ ABSL_GUARDED_BY(mutex_) = 0;
  bool closed_ ABSL_GUARDED_BY(mutex_) = false;   // No more tickets come.
  bool stopped_ ABSL_GUARDED_BY(mutex_) = false;  // Those that are there are not sent.
  int running_ ABSL_GUARDED_BY(mutex_) = 0;
  int most_running_ ABSL_GUARDED_BY(mutex_) = 0;
  int64_t num_held_back_ ABSL_GUARDED_BY(mutex_) = 0;
  absl::Time last_end_ ABSL_GUARDED_BY(mutex_) = absl::InfinitePast();
};

// False when the run was cancelled before `due`.
bool WaitUntil(absl::Time due, int cancel_descriptor, Clock* clock) {
  for (;;) {
    const absl::Duration left = due - clock->Now();
    if (left <= absl::ZeroDuration()) {
      return true;
    }
    // poll takes whole milliseconds: the rest below one is slept.
    const int64_t milliseconds = std::min<int64_t>(left / absl::Milliseconds(1), 1000);
    if (milliseconds == 0) {
      clock->Sleep(left);
      return true;
    }
    pollfd wait{cancel_descriptor, POLLIN, 0};
    if (::poll(&wait, 1, static_cast<int>(milliseconds)) > 0) {
      return false;
    }
  }
}

absl::Duration ProcessorTime() {
  rusage usage{};
  ::getrusage(RUSAGE_SELF, &usage);
  return absl::DurationFromTimeval(usage.ru_utime) +
         absl::DurationFromTimeval(usage.ru_stime);
}

absl::Status Check(const LoadRunOptions& options,
                   std::span<const PlannedRequest> requests, const json& extra) {
  const int concurrency = options.max_concurrency.value_or(kConcurrencyMax);
  if (concurrency < 1 || concurrency > kConcurrencyMax) {
    return InvalidArgumentF("a concurrency of {}, expected 1 to {}", concurrency,
                            kConcurrencyMax);
  }
  if (!extra.is_object()) {
    return InvalidArgumentF("the extra body '{}' is no JSON object", options.extra_body);
  }
  for (const PlannedRequest& request : requests) {
    if (options.chat && request.prompt_text.empty()) {
      return InvalidArgumentF("a chat of token ids, expected texts");
    }
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<LoadRun> RunLoad(const LoadRunOptions& options,
                                std::span<const PlannedRequest> requests, Clock* clock) {
  json extra = json::parse(options.extra_body, nullptr, false);
  TESSERA_RETURN_IF_ERROR(Check(options, requests, extra));
  LoadRun run;
  run.records.resize(requests.size());
  for (size_t i = 0; i < requests.size(); ++i) {
    run.records[i].arrival = requests[i].start;
  }
  const absl::Duration cpu_before = ProcessorTime();
  const RunContext context{options, std::move(extra), clock->Now(), clock};
  Crew crew(context, requests, &run);
  absl::Status status;
  for (size_t i = 0; i < requests.size(); ++i) {
    if (!WaitUntil(context.start + requests[i].start, options.http.cancel_descriptor,
                   clock)) {
      crew.Stop();
      break;
    }
    const absl::StatusOr<bool> goes_on = crew.Dispatch(i);
    if (!goes_on.ok()) {
      status = goes_on.status();
      crew.Stop();
      break;
    }
    if (!*goes_on) {
      break;
    }
  }
  crew.Join();
  TESSERA_RETURN_IF_ERROR(status);
  run.client_cpu = ProcessorTime() - cpu_before;
  return run;
}

}  // namespace tessera::cli
