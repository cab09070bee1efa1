// ReplyPrinter: a reply as it streams in, on a terminal or into a pipe.
//
// It stands between ChatSession and the output stream. A pipe gets the answer's bytes and
// nothing else. A terminal gets reasoning dimmed, Markdown styled where colours are on,
// and no control character of the reply.
#ifndef TESSERA_CLI_CLIENT_REPLY_PRINTER_H_
#define TESSERA_CLI_CLIENT_REPLY_PRINTER_H_

#include <iosfwd>
#include <string>
#include <string_view>

#include "cli/client/ansi_markdown.h"

namespace tessera::cli {

// `text` without the control characters that could move the cursor or change the
// terminal; line ends and tabs stay.
std::string ForTerminal(std::string_view text);

// Borrows the stream. External synchronisation.
class ReplyPrinter {
 public:
  // `styled` has no effect without `terminal`.
  ReplyPrinter(std::ostream* out, bool terminal, bool styled)
      : out_(out), terminal_(terminal), styled_(terminal && styled) {}

  void Reasoning(std::string_view text);
  void Content(std::string_view text);
  // Ends the reply, and its line.
  void Finish();

 private:
  void EndReasoning();

  std::ostream* const out_;
  const bool terminal_;
  const bool styled_;
  AnsiMarkdown markdown_;
  bool in_reasoning_ = false;
  bool open_line_ = false;  // the answer's last line has no end yet
};

}  // namespace tessera::cli

#endif  // TESSERA_CLI_CLIENT_REPLY_PRINTER_H_
