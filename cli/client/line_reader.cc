#include "cli/client/line_reader.h"

#include <array>
#include <cerrno>
#include <cstring>
#include <utility>

#include <poll.h>
#include <unistd.h>

#include "common/status.h"

namespace tessera::cli {

absl::StatusOr<ReadLine> LineReader::Next() {
  for (;;) {
    const size_t line_end = buffer_.find('\n');
    if (line_end != std::string::npos) {
      ReadLine line{ReadLine::Kind::kLine, buffer_.substr(0, line_end)};
      buffer_.erase(0, line_end + 1);
      if (line.text.ends_with('\r')) {
        line.text.pop_back();
      }
      return line;
    }
    if (ended_) {
      if (buffer_.empty()) {
        return ReadLine();
      }
      return ReadLine{ReadLine::Kind::kLine, std::exchange(buffer_, "")};
    }
    if (buffer_.size() > line_bytes_max_) {
      return StatusF(absl::StatusCode::kResourceExhausted,
                     "a line is longer than {} bytes", line_bytes_max_);
    }
    std::array<pollfd, 2> waits = {pollfd{descriptor_, POLLIN, 0},
                                   pollfd{interrupt_descriptor_, POLLIN, 0}};
    if (::poll(waits.data(), waits.size(), -1) < 0) {
      if (errno == EINTR) {
        continue;
      }
      return UnavailableF("cannot wait for input: {}", std::strerror(errno));
    }
    if (waits[1].revents != 0) {
      buffer_.clear();
      return ReadLine{ReadLine::Kind::kInterrupted, ""};
    }
    std::array<char, 4096> piece;
    const ssize_t got = ::read(descriptor_, piece.data(), piece.size());
    if (got < 0) {
      if (errno == EINTR || errno == EAGAIN) {
        continue;
      }
      return UnavailableF("cannot read the input: {}", std::strerror(errno));
    }
    buffer_.append(piece.data(), static_cast<size_t>(got));
    ended_ = got == 0;
  }
}

}  // namespace tessera::cli
