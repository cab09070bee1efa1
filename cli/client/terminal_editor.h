// TerminalEditor: reads messages from a person at a terminal: line editing, history with
// the arrow keys, several lines (Alt-Enter, Ctrl-J, a backslash at the end, or a paste).
//
// It stands under `tessera chat` where both ends are terminals; LineReader serves pipes.
// The terminal is in raw mode only inside Read, so that Ctrl-C during a reply is a
// signal.
#ifndef TESSERA_CLI_CLIENT_TERMINAL_EDITOR_H_
#define TESSERA_CLI_CLIENT_TERMINAL_EDITOR_H_

#include <cstddef>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "cli/client/edit_line.h"
#include "cli/client/line_reader.h"

namespace tessera::cli {

// Borrows its descriptors, which are terminals. External synchronisation.
class TerminalEditor {
 public:
  TerminalEditor(int input, int output) : input_(input), output_(output) {}

  // Blocks until the person ends a message with Enter. kEnd: Ctrl-D on an empty line, or
  // the terminal is gone; kInterrupted: Ctrl-C, which drops the line. kUnavailable: the
  // terminal cannot be read.
  absl::StatusOr<ReadLine> Read(std::string_view prompt);

 private:
  enum class Outcome { kGoOn, kLine, kEnd, kInterrupted };

  // The next byte; -1 at the end.
  int NextByte();
  // Whether a byte comes soon: tells an escape sequence from the key Esc.
  bool HasByteSoon() const;
  Outcome TakeKey(int key);
  Outcome TakeEnter();
  void TakeControl(int key);
  void TakeEscape();
  void TakeSequence(const std::string& sequence);
  void TakePaste();
  void TakeText(int first);
  // Draws the line in one row; what does not fit is scrolled out of sight.
  void Draw(std::string_view prompt);
  void Write(std::string_view text) const;

  const int input_;
  const int output_;
  EditLine line_;
};

}  // namespace tessera::cli

#endif  // TESSERA_CLI_CLIENT_TERMINAL_EDITOR_H_
