// AnsiMarkdown: Markdown for a terminal, styled as it streams in: headings, emphasis,
// code, lists, quotes and rules. What is not understood comes out as it is.
//
// It stands between ChatSession and the terminal. It works a character at a time and
// holds back no more than the few bytes that may begin a mark, because a reply is read
// while it is written.
#ifndef TESSERA_CLI_CLIENT_ANSI_MARKDOWN_H_
#define TESSERA_CLI_CLIENT_ANSI_MARKDOWN_H_

#include <string>
#include <string_view>

namespace tessera::cli {

// External synchronisation.
class AnsiMarkdown {
 public:
  // The next piece of the text, cut anywhere; returns what can be shown of it now. The
  // text must hold no control characters but line ends and tabs.
  std::string Append(std::string_view text);

  // The rest, with all styles switched off. The next Append begins a new text.
  std::string Finish();

 private:
  void TakeLine(bool ended, std::string* out);
  void TakeInline(char c, std::string* out);
  void FlushMark(char next, std::string* out);
  // Whether `head_` may still become a mark of a line's begin.
  bool HeadIsOpen() const;
  void EmitHead(std::string* out);
  void EndLine(std::string* out);
  void Style(std::string* out) const;

  std::string head_;      // begin of a line, until it is clear what the line is
  bool in_line_ = false;  // past the head
  bool in_fence_ = false;
  std::string mark_;  // a run of '*' or '`' that may grow
  char last_ = ' ';   // the character before the mark
  bool bold_ = false;
  bool italic_ = false;
  bool code_ = false;
  bool heading_ = false;
  bool quote_ = false;
};

}  // namespace tessera::cli

#endif  // TESSERA_CLI_CLIENT_ANSI_MARKDOWN_H_
