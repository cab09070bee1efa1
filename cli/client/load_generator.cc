#include "cli/client/load_generator.h"

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <memory>
#include <thread>
#include <utility>

#include "absl/time/time.h"
#include "cli/client/openai_client.h"
#include "nlohmann/json.hpp"
#include <poll.h>

#include "common/mutex.h"
#include "common/status.h"
#include "common/status_macros.h"

namespace tessera::cli {
namespace {

using nlohmann::json;

constexpr int kConcurrencyMax = 4096;

json RequestBody(const LoadOptions& options, const PlannedRequest& request) {
  json body = {{"model", options.model},
               {"prompt", request.prompt_ids},
               {"max_tokens", request.output_len},
               {"stream_options", {{"include_usage", true}}}};
  if (options.ignore_eos) {
    body["ignore_eos"] = true;
  }
  if (options.temperature.has_value()) {
    body["temperature"] = *options.temperature;
  }
  return body;
}

// What a chunk says of the answer's only choice.
struct Progression {
  // Text, or an empty piece of an unfinished choice, which a server sends when its token
  // is half a character.
  bool brings_tokens = false;
  bool finishes = false;
};

Progression ProgressionOf(const json& chunk) {
  const auto choices = chunk.find("choices");
  if (choices == chunk.end() || !choices->is_array() || choices->empty() ||
      !choices->front().is_object()) {
    return {};
  }
  const json& choice = choices->front();
  const auto text = choice.find("text");
  const auto reason = choice.find("finish_reason");
  Progression out;
  out.finishes = reason != choice.end() && !reason->is_null();
  out.brings_tokens = text != choice.end() && text->is_string() &&
                      (!out.finishes || !text->get_ref<const std::string&>().empty());
  return out;
}

std::optional<int64_t> UsageCount(const json& chunk, const char* key) {
  const auto usage = chunk.find("usage");
  if (usage == chunk.end() || !usage->is_object()) {
    return std::nullopt;
  }
  const auto count = usage->find(key);
  return count != usage->end() && count->is_number_integer()
             ? std::optional(count->get<int64_t>())
             : std::nullopt;
}

void SendOne(const LoadOptions& options, const PlannedRequest& request,
             OpenAiClient* client, Clock* clock, RequestRecord* record) {
  const json body = RequestBody(options, request);
  std::optional<int64_t> output_tokens;
  int64_t pieces = 0;
  // A server without usage is counted by pieces of text and the prompt as it was sent.
  record->input_tokens = static_cast<int64_t>(request.prompt_ids.size());
  record->sent = true;
  const absl::Time sent = clock->Now();
  absl::Time last = sent;
  const StreamEnd end = client->Stream(options.endpoint, body, [&](const json& chunk) {
    const Progression progression = ProgressionOf(chunk);
    // An answer may be its end alone, when the model has nothing to say.
    if (progression.brings_tokens || (progression.finishes && pieces == 0)) {
      const absl::Time now = clock->Now();
      if (pieces++ == 0) {
        record->time_to_first_token = now - sent;
      } else {
        record->gaps.push_back(now - last);
      }
      last = now;
    }
    record->input_tokens =
        UsageCount(chunk, "prompt_tokens").value_or(record->input_tokens);
    if (const auto count = UsageCount(chunk, "completion_tokens")) {
      output_tokens = count;
    }
    return true;
  });
  record->end_to_end = last - sent;
  record->output_tokens = output_tokens.value_or(pieces);
  record->error_kind = end.kind;
  record->error = std::string(end.status.message());
  if (end.status.ok() && pieces == 0) {
    record->error_kind = "no tokens";
    record->error = "the answer held no text";
  }
}

// What the threads of a run share. Thread-safe.
class Progress {
 public:
  // The index of the next request to send; nothing when all are taken or the run ended.
  std::optional<size_t> Take(size_t num_requests) {
    const size_t next = next_.fetch_add(1, std::memory_order_relaxed);
    return next < num_requests && !stopped_.load(std::memory_order_relaxed)
               ? std::optional(next)
               : std::nullopt;
  }

  void Stop() { stopped_.store(true, std::memory_order_relaxed); }

  void Begin() {
    MutexLock lock(&mutex_);
    most_running_ = std::max(most_running_, ++running_);
  }

  void End(absl::Time now) {
    MutexLock lock(&mutex_);
    --running_;
    last_end_ = std::max(last_end_, now);
  }

  // For the end of the run.
  std::pair<int, absl::Time> Result() const {
    MutexLock lock(&mutex_);
    return {most_running_, last_end_};
  }

 private:
  std::atomic<size_t> next_{0};
  std::atomic<bool> stopped_{false};
  mutable Mutex mutex_;
  int running_ ABSL_GUARDED_BY(mutex_) = 0;
  int most_running_ ABSL_GUARDED_BY(mutex_) = 0;
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

}  // namespace

absl::StatusOr<LoadRun> RunLoad(const LoadOptions& options,
                                std::span<const PlannedRequest> requests, Clock* clock) {
  if (options.max_concurrency < 1 || options.max_concurrency > kConcurrencyMax) {
    return InvalidArgumentF("a concurrency of {}, expected 1 to {}",
                            options.max_concurrency, kConcurrencyMax);
  }
  const size_t num_threads =
      std::min(requests.size(), static_cast<size_t>(options.max_concurrency));
  std::vector<std::unique_ptr<OpenAiClient>> clients(num_threads);
  for (auto& client : clients) {
    TESSERA_ASSIGN_OR_RETURN(client, OpenAiClient::Create(options.http, options.api_key));
  }
  LoadRun run;
  run.records.resize(requests.size());
  Progress progress;
  const absl::Time start = clock->Now();
  std::vector<std::thread> threads;
  threads.reserve(num_threads);
  for (const auto& client : clients) {
    threads.emplace_back([&, client = client.get()] {
      while (const auto index = progress.Take(requests.size())) {
        const PlannedRequest& request = requests[*index];
        RequestRecord* record = &run.records[*index];
        if (!WaitUntil(start + request.start, options.http.cancel_descriptor, clock)) {
          progress.Stop();
          return;
        }
        progress.Begin();
        SendOne(options, request, client, clock, record);
        progress.End(clock->Now());
        if (record->error_kind == "cancelled") {
          progress.Stop();
        }
      }
    });
  }
  for (std::thread& thread : threads) {
    thread.join();
  }
  const auto [most_running, last_end] = progress.Result();
  run.max_concurrent_requests = most_running;
  run.duration = std::max(last_end - start, absl::ZeroDuration());
  return run;
}

}  // namespace tessera::cli
