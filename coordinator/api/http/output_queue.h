// OutputQueue: the bytes that one connection still has to send: what is being written,
// and what waits behind it. It also says when a client that reads too slowly is to be
// cut: the engine does not wait for clients, so what waits for them must be bounded. It
// knows no socket.
#ifndef TESSERA_COORDINATOR_API_HTTP_OUTPUT_QUEUE_H_
#define TESSERA_COORDINATOR_API_HTTP_OUTPUT_QUEUE_H_

#include <cstddef>
#include <optional>
#include <string>
#include <string_view>

#include "absl/time/time.h"

namespace tessera::coordinator {

// How far a stream may fall behind.
struct BacklogLimits {
  size_t bytes = 0;      // more than this is tolerated for `time`
  size_t bytes_max = 0;  // more than this is not tolerated
  absl::Duration time;
};

// External synchronisation: the connection's strand.
class OutputQueue {
 public:
  // One write leaves at most so much in flight, which is also the unit that a write's
  // timeout is about.
  static constexpr size_t kWriteBytes = 64 << 10;

  void Append(std::string_view data) { pending_ += data; }

  // Takes the next part to be written; valid until Finish. Only while nothing is in
  // flight.
  std::string_view Begin();

  // The part in flight is written.
  void Finish();

  // Drops what waits; what is in flight belongs to a write and stays.
  void DropPending() { pending_ = std::string(); }

  // Gives the memory back; only while nothing waits or is in flight.
  void Shrink();

  bool writing() const { return writing_; }
  bool has_pending() const { return !pending_.empty(); }
  size_t size() const { return pending_.size() + in_flight_.size(); }

  // Whether a stream may go on. Once it caught up, its time starts anew.
  bool Check(const BacklogLimits& limits, absl::Time now);
  void CaughtUp() { over_since_.reset(); }

 private:
  std::string pending_;    // to be written after in_flight_
  std::string in_flight_;  // being written
  bool writing_ = false;
  std::optional<absl::Time> over_since_;  // too much waits since then
};

}  // namespace tessera::coordinator

#endif  // TESSERA_COORDINATOR_API_HTTP_OUTPUT_QUEUE_H_
