// RecordingWriter: stands between a route and the connection of a request that came with
// an Idempotency-Key, and keeps the answer for the requests that repeat it.
//
// A whole answer is made even if its client leaves, because that client may come again
// for it. A stream ends with its client, as that is how one is stopped; the key is then
// free.
#ifndef TESSERA_COORDINATOR_API_IDEMPOTENCY_RECORDING_WRITER_H_
#define TESSERA_COORDINATOR_API_IDEMPOTENCY_RECORDING_WRITER_H_

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "common/clock.h"
#include "coordinator/api/http_message.h"
#include "coordinator/api/idempotency/idempotency_store.h"

namespace tessera::coordinator {

// The header of every answer that was made for an earlier request.
inline constexpr char kReplayedHeader[] = "Idempotent-Replayed";

// Answers `writer` with what an earlier request got.
void Replay(const HttpResponse& answer, ResponseWriter* writer);

// Used as every ResponseWriter, by one request. Only answers with the status 200 are
// kept, of streams only those that ended well: whatever went wrong may be tried again. A
// request that ends without an answer frees its key. A stream is recorded as long as it
// may be kept and the store has room.
class RecordingWriter final : public ResponseWriter,
                              public std::enable_shared_from_this<RecordingWriter> {
 public:
  // `serial` is what Admit said of the key; `stopped` is what those who wait are told
  // when a stream is stopped. `clock` must outlive the writer.
  RecordingWriter(std::shared_ptr<IdempotencyStore> store, Clock* clock,
                  IdempotencyKey key, uint64_t serial, HttpResponse stopped,
                  std::shared_ptr<ResponseWriter> next);
  ~RecordingWriter() override;

  void Respond(HttpResponse response) override;
  void StartStream(HttpResponse head) override;
  void Write(std::string data) override;
  void Finish(bool close) override;
  void OnDisconnect(std::function<void()> handler) override;
  void Post(std::function<void()> task) override { next_->Post(std::move(task)); }

 private:
  // Ends the key with `answer`, kept or not, and tells it to those who wait. Once.
  void End(HttpResponse answer, bool keep);
  // Makes room for a body of `size`; if there is none, nothing is recorded any more.
  bool Grow(size_t size);
  void StopRecording();

  const std::shared_ptr<IdempotencyStore> store_;
  Clock* const clock_;
  const IdempotencyKey key_;
  const uint64_t serial_;
  const HttpResponse stopped_;
  const std::shared_ptr<ResponseWriter> next_;
  HttpResponse stream_;  // the head, and the body so far
  bool streams_ = false;
  bool records_ = true;  // false: the stream is too large, or the store has no room
  size_t held_ = 0;      // what the store counts for it, at least the body's size
  bool ended_ = false;
};

}  // namespace tessera::coordinator

#endif  // TESSERA_COORDINATOR_API_IDEMPOTENCY_RECORDING_WRITER_H_
