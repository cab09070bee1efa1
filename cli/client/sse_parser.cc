#include "cli/client/sse_parser.h"

#include <utility>

#include "common/status.h"

namespace tessera::cli {
namespace {

constexpr std::string_view kByteOrderMark = "\xEF\xBB\xBF";

}  // namespace

absl::Status SseParser::Append(std::string_view bytes, std::vector<SseEvent>* events) {
  for (const char c : bytes) {
    const bool second_half = c == '\n' && after_carriage_return_;
    after_carriage_return_ = c == '\r';
    if (second_half) {
      continue;
    }
    if (c == '\r' || c == '\n') {
      EndLine(events);
      continue;
    }
    line_.push_back(c);
    if (line_.size() + pending_.data.size() > max_event_bytes_) {
      return StatusF(absl::StatusCode::kResourceExhausted,
                     "an event of the stream is larger than {} bytes", max_event_bytes_);
    }
  }
  return absl::OkStatus();
}

void SseParser::EndLine(std::vector<SseEvent>* events) {
  std::string_view line = line_;
  if (std::exchange(at_start_, false) && line.starts_with(kByteOrderMark)) {
    line.remove_prefix(kByteOrderMark.size());
  }
  if (line.empty()) {
    if (has_data_) {
      events->push_back(std::move(pending_));
    }
    pending_ = SseEvent();
    has_data_ = false;
    line_.clear();
    return;
  }
  const size_t colon = line.find(':');
  const std::string_view field = line.substr(0, colon);
  std::string_view value =
      colon == std::string_view::npos ? std::string_view() : line.substr(colon + 1);
  if (value.starts_with(' ')) {
    value.remove_prefix(1);
  }
  if (field == "data") {
    if (has_data_) {
      pending_.data.push_back('\n');
    }
    pending_.data.append(value);
    has_data_ = true;
  } else if (field == "event") {
    pending_.event = value;
  }
  line_.clear();
}

}  // namespace tessera::cli
