#include "coordinator/api/observed_writer.h"

#include <string>
#include <utility>

#include "fmt/format.h"

#include "common/log.h"

namespace tessera::coordinator {
namespace {

// nginx's code for a client that closed before the answer began.
constexpr int kClientLeft = 499;

// As OpenAI's service writes it: "1s", "6m0s".
std::string ShortDuration(absl::Duration duration) {
  const int64_t seconds = absl::ToInt64Seconds(absl::Ceil(duration, absl::Seconds(1)));
  return seconds < 60 ? fmt::format("{}s", seconds)
                      : fmt::format("{}m{}s", seconds / 60, seconds % 60);
}

void AddBucket(std::string_view kind, const BucketState& bucket, absl::Time now,
               bool anthropic, HttpHeaders* headers) {
  if (bucket.limit == 0) {
    return;
  }
  const auto add = [&](std::string_view what, std::string value) {
    headers->emplace_back(anthropic ? fmt::format("anthropic-ratelimit-{}-{}", kind, what)
                                    : fmt::format("x-ratelimit-{}-{}", what, kind),
                          std::move(value));
  };
  add("limit", fmt::format("{}", bucket.limit));
  add("remaining", fmt::format("{}", bucket.remaining));
  add("reset", anthropic ? absl::FormatTime("%Y-%m-%dT%H:%M:%SZ", now + bucket.reset,
                                            absl::UTCTimeZone())
                         : ShortDuration(bucket.reset));
}

}  // namespace

ObservedWriter::ObservedWriter(const ApiContext* context,
                               std::shared_ptr<ResponseWriter> next, HttpHeaders headers,
                               Labels labels)
    : context_(context),
      next_(std::move(next)),
      headers_(std::move(headers)),
      labels_(std::move(labels)) {
  context_->observer->OnHttpStart();
}

void ObservedWriter::AddHeaders(HttpHeaders* headers) const {
  headers->insert(headers->end(), headers_.begin(), headers_.end());
  const RateState state = context_->rates->state(labels_.tenant);
  const absl::Time now = context_->clock->Now();
  AddBucket("requests", state.requests, now, labels_.anthropic, headers);
  AddBucket("tokens", state.tokens, now, labels_.anthropic, headers);
}

void ObservedWriter::Respond(HttpResponse response) {
  AddHeaders(&response.headers);
  const int status = response.status;
  next_->Respond(std::move(response));
  End(status);
}

void ObservedWriter::StartStream(HttpResponse head) {
  AddHeaders(&head.headers);
  context_->observer->OnStreamOpen();
  int unanswered = kUnanswered;
  if (!progress_.compare_exchange_strong(unanswered, head.status)) {
    context_->observer->OnStreamClose();  // the client left first, and was counted
  }
  next_->StartStream(std::move(head));
}

void ObservedWriter::Write(std::string data) { next_->Write(std::move(data)); }

void ObservedWriter::Finish(bool close) {
  next_->Finish(close);
  End(kClientLeft);
}

void ObservedWriter::OnDisconnect(std::function<void()> handler) {
  next_->OnDisconnect([weak = weak_from_this(), handler = std::move(handler)] {
    if (const auto self = weak.lock()) {
      self->End(kClientLeft);
    }
    handler();
  });
}

void ObservedWriter::Post(std::function<void()> task) { next_->Post(std::move(task)); }

void ObservedWriter::End(int code) {
  const int progress = progress_.exchange(kEnded);
  if (progress == kEnded) {
    return;
  }
  const bool streamed = progress != kUnanswered;
  if (streamed) {
    context_->observer->OnStreamClose();
  }
  const int status = streamed ? progress : code;
  const absl::Duration duration = context_->clock->Now() - labels_.start;
  // Probes and scrapes come every few seconds and say nothing that metrics do not.
  log::Write(labels_.method == "POST" ? log::Level::kInfo : log::Level::kDebug, "http",
             "answered",
             {{"request_id", FindHeader(headers_, "x-request-id")},
              {"route", labels_.route},
              {"method", labels_.method},
              {"code", status},
              {"seconds", absl::ToDoubleSeconds(duration)}});
  context_->observer->OnHttpEnd(labels_.route, labels_.method, status, duration);
}

}  // namespace tessera::coordinator
