#include "coordinator/api/idempotency/recording_writer.h"

#include <algorithm>
#include <utility>
#include <vector>

namespace tessera::coordinator {

void Replay(const HttpResponse& answer, ResponseWriter* writer) {
  HttpResponse copy = answer;
  copy.headers.emplace_back(kReplayedHeader, "true");
  writer->Respond(std::move(copy));
}

RecordingWriter::RecordingWriter(std::shared_ptr<IdempotencyStore> store, Clock* clock,
                                 IdempotencyKey key, uint64_t serial,
                                 HttpResponse stopped,
                                 std::shared_ptr<ResponseWriter> next)
    : store_(std::move(store)),
      clock_(clock),
      key_(std::move(key)),
      serial_(serial),
      stopped_(std::move(stopped)),
      next_(std::move(next)) {}

RecordingWriter::~RecordingWriter() { End(stopped_, /*keep=*/false); }

void RecordingWriter::Respond(HttpResponse response) {
  End(response, /*keep=*/response.status == 200);
  next_->Respond(std::move(response));
}

void RecordingWriter::StartStream(HttpResponse head) {
  streams_ = true;
  stream_ = head;
  stream_.body.clear();
  next_->StartStream(std::move(head));
}

void RecordingWriter::Write(std::string data) {
  if (!ended_ && records_ && Grow(stream_.body.size() + data.size())) {
    stream_.body += data;
  }
  next_->Write(std::move(data));
}

bool RecordingWriter::Grow(size_t size) {
  if (size <= held_) {
    return true;
  }
  const size_t most = store_->max_answer_bytes();
  // In growing steps: the store is asked seldom, and the text moved seldom.
  const size_t held = std::min(std::max(size, 2 * held_), most);
  records_ = size <= most && store_->HoldRecording(key_, serial_, held);
  if (records_) {
    held_ = held;
    stream_.body.reserve(held);
  } else {
    StopRecording();
  }
  return records_;
}

void RecordingWriter::StopRecording() {
  records_ = false;
  std::string().swap(stream_.body);  // its memory as well
  if (std::exchange(held_, 0) > 0) {
    store_->HoldRecording(key_, serial_, 0);
  }
}

void RecordingWriter::Finish(bool close) {
  if (close || !records_) {
    End(stopped_, /*keep=*/false);
  } else {
    stream_.body.shrink_to_fit();  // what is kept is counted without its reserve
    End(std::move(stream_), /*keep=*/true);
  }
  next_->Finish(close);
}

void RecordingWriter::OnDisconnect(std::function<void()> handler) {
  next_->OnDisconnect([weak = weak_from_this(), handler = std::move(handler)] {
    const auto self = weak.lock();
    if (self == nullptr || self->streams_) {
      if (self != nullptr) {
        self->End(self->stopped_, /*keep=*/false);
      }
      handler();
    }
  });
}

void RecordingWriter::End(HttpResponse answer, bool keep) {
  if (std::exchange(ended_, true)) {
    return;
  }
  StopRecording();
  const auto shared = std::make_shared<const HttpResponse>(std::move(answer));
  const auto waiting = store_->End(key_, serial_, keep ? shared : nullptr, clock_->Now());
  for (const std::shared_ptr<ResponseWriter>& writer : waiting) {
    if (shared->status == 200) {
      Replay(*shared, writer.get());
    } else {
      writer->Respond(*shared);
    }
  }
}

}  // namespace tessera::coordinator
