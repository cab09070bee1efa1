#include "coordinator/api/observed_writer.h"

#include <utility>

#include "common/log.h"

namespace tessera::coordinator {
namespace {

// nginx's code for a client that closed before the answer began.
constexpr int kClientLeft = 499;

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

void ObservedWriter::Respond(HttpResponse response) {
  response.headers.insert(response.headers.end(), headers_.begin(), headers_.end());
  const int status = response.status;
  next_->Respond(std::move(response));
  End(status);
}

void ObservedWriter::StartStream(HttpResponse head) {
  head.headers.insert(head.headers.end(), headers_.begin(), headers_.end());
  stream_status_ = head.status;
  context_->observer->OnStreamOpen();
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
  if (std::exchange(ended_, true)) {
    return;
  }
  const bool streamed = stream_status_ != 0;
  if (streamed) {
    context_->observer->OnStreamClose();
  }
  const int status = streamed ? stream_status_ : code;
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
