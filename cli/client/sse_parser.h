// SseParser: a text/event-stream, cut anywhere by the network, back into events.
//
// It stands between HttpClient and what reads an answer as it is written. It knows the
// framing of server-sent events and nothing of what the events mean; reconnecting (the
// `id` and `retry` fields) is not part of it.
#ifndef TESSERA_CLI_CLIENT_SSE_PARSER_H_
#define TESSERA_CLI_CLIENT_SSE_PARSER_H_

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"

namespace tessera::cli {

// One event; `data` joins its data lines with '\n'.
struct SseEvent {
  std::string event;  // Empty when the stream gave no name.
  std::string data;

  bool operator==(const SseEvent&) const = default;
};

// Owns the unfinished line and event. External synchronisation.
class SseParser {
 public:
  // An event or a line above `max_event_bytes` ends the stream with an error.
  explicit SseParser(size_t max_event_bytes = size_t{8} << 20)
      : max_event_bytes_(max_event_bytes) {}

  // Reads the next bytes and appends the events that they complete. Lines may end in LF,
  // CR or CRLF; comments and events without data are skipped; what the stream does not
  // finish with an empty line is never an event. kResourceExhausted above the limit; the
  // parser stays unusable then. Does not block.
  absl::Status Append(std::string_view bytes, std::vector<SseEvent>* events);

 private:
  void EndLine(std::vector<SseEvent>* events);

  const size_t max_event_bytes_;
  std::string line_;
  SseEvent pending_;
  bool has_data_ = false;
  bool after_carriage_return_ = false;  // A LF that follows belongs to the same line end.
  bool at_start_ = true;                // A byte order mark may stand there.
};

}  // namespace tessera::cli

#endif  // TESSERA_CLI_CLIENT_SSE_PARSER_H_
