// LineReader: lines from a file descriptor, waiting for Ctrl-C at the same time.
//
// It stands under `tessera chat`. The terminal edits the line; this only reads what it
// hands over, so it works the same with a pipe.
#ifndef TESSERA_CLI_CLIENT_LINE_READER_H_
#define TESSERA_CLI_CLIENT_LINE_READER_H_

#include <cstddef>
#include <string>

#include "absl/status/statusor.h"

namespace tessera::cli {

// What ended the wait for a line.
struct ReadLine {
  enum class Kind { kLine, kEnd, kInterrupted };
  Kind kind = Kind::kEnd;
  std::string text;  // Without its line end; only for kLine.
};

// Borrows its descriptors. External synchronisation.
class LineReader {
 public:
  // `interrupt_descriptor`, when it becomes readable, ends the wait; -1: nothing does. It
  // is not read.
  LineReader(int descriptor, int interrupt_descriptor, size_t line_bytes_max = 1 << 20)
      : descriptor_(descriptor),
        interrupt_descriptor_(interrupt_descriptor),
        line_bytes_max_(line_bytes_max) {}

  // Blocks until there is a line; the last one may lack its line end. kInterrupted drops
  // what was read of the unfinished line. kResourceExhausted: the line is too long;
  // kUnavailable: the descriptor cannot be read.
  absl::StatusOr<ReadLine> Next();

 private:
  const int descriptor_;
  const int interrupt_descriptor_;
  const size_t line_bytes_max_;
  std::string buffer_;
  bool ended_ = false;
};

}  // namespace tessera::cli

#endif  // TESSERA_CLI_CLIENT_LINE_READER_H_
