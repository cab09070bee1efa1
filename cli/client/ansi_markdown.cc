#include "cli/client/ansi_markdown.h"

#include <algorithm>
#include <utility>

namespace tessera::cli {
namespace {

constexpr std::string_view kPlain = "\x1b[0m";
constexpr std::string_view kBold = "\x1b[1m";
constexpr std::string_view kDim = "\x1b[2m";
constexpr std::string_view kItalic = "\x1b[3m";
constexpr std::string_view kCode = "\x1b[36m";
constexpr std::string_view kRule = "────────────────────────";
// Longer begins of lines are text.
constexpr size_t kMaxHead = 24;

bool IsWord(char c) {
  return (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') ||
         static_cast<unsigned char>(c) >= 0x80;
}

size_t Indent(std::string_view head) {
  return std::min(head.find_first_not_of(' '), head.size());
}

bool IsFence(std::string_view rest) {
  return rest.starts_with("```") || rest.starts_with("~~~");
}

// Three or more of one mark and nothing else.
bool IsRule(std::string_view rest) {
  return rest.size() >= 3 && (rest[0] == '-' || rest[0] == '*' || rest[0] == '_') &&
         rest.find_first_not_of(rest[0]) == std::string_view::npos;
}

}  // namespace

std::string AnsiMarkdown::Append(std::string_view text) {
  std::string out;
  for (const char c : text) {
    if (in_line_) {
      TakeInline(c, &out);
    } else if (c == '\n') {
      TakeLine(/*ended=*/true, &out);
    } else {
      head_.push_back(c);
      TakeLine(/*ended=*/false, &out);
    }
  }
  return out;
}

std::string AnsiMarkdown::Finish() {
  std::string out;
  if (!in_line_ && !head_.empty()) {
    const std::string rest = head_.substr(Indent(head_));
    // The mark of a fence or a rule whose line end never came.
    out += IsFence(rest) ? "" : head_;
  }
  FlushMark('\n', &out);
  if (bold_ || italic_ || code_ || heading_ || quote_ || in_fence_) {
    out += kPlain;
  }
  *this = AnsiMarkdown();
  return out;
}

bool AnsiMarkdown::HeadIsOpen() const {
  if (head_.size() > kMaxHead) {
    return false;
  }
  const std::string_view rest = std::string_view(head_).substr(Indent(head_));
  if (rest.empty() || IsFence(rest)) {
    return true;  // An info string follows a fence up to the line's end.
  }
  if (in_fence_) {
    return rest == "`" || rest == "``" || rest == "~" || rest == "~~";
  }
  const bool one_mark = rest.find_first_not_of(rest[0]) == std::string_view::npos;
  return one_mark && std::string_view("#`~-*_+>").find(rest[0]) != std::string_view::npos;
}

void AnsiMarkdown::TakeLine(bool ended, std::string* out) {
  const std::string_view rest = std::string_view(head_).substr(Indent(head_));
  if (ended && IsFence(rest)) {
    in_fence_ = !in_fence_;
    *out += in_fence_ ? kCode : kPlain;
    head_.clear();
    return;
  }
  if (ended && !in_fence_ && IsRule(rest)) {
    *out += std::string(kDim) + std::string(kRule) + std::string(kPlain) + "\n";
    head_.clear();
    return;
  }
  if (!ended && HeadIsOpen()) {
    return;
  }
  EmitHead(out);
  if (ended) {
    EndLine(out);
  }
}

void AnsiMarkdown::EmitHead(std::string* out) {
  const std::string head = std::exchange(head_, "");
  const size_t indent = Indent(head);
  const std::string_view rest = std::string_view(head).substr(indent);
  in_line_ = true;
  last_ = ' ';
  if (in_fence_) {
    *out += head;
    return;
  }
  out->append(indent, ' ');
  size_t taken = 0;
  const size_t hashes = std::min(rest.find_first_not_of('#'), rest.size());
  if (hashes >= 1 && hashes <= 6 && rest.size() > hashes && rest[hashes] == ' ') {
    heading_ = true;
    taken = hashes + 1;
    *out += kBold;
  } else if (rest.size() >= 2 &&
             std::string_view("-*+").find(rest[0]) != std::string_view::npos &&
             rest[1] == ' ') {
    *out += "• ";
    taken = 2;
  } else if (rest.starts_with(">")) {
    quote_ = true;
    taken = rest.starts_with("> ") ? 2 : 1;
    *out += std::string(kDim) + "│ ";
  }
  for (const char c : rest.substr(taken)) {
    TakeInline(c, out);
  }
}

void AnsiMarkdown::Style(std::string* out) const {
  *out += kPlain;
  *out += bold_ || heading_ ? kBold : "";
  *out += italic_ ? kItalic : "";
  *out += quote_ ? kDim : "";
  *out += code_ ? kCode : "";
}

// A mark opens before text and closes behind it; else it is what it looks like.
void AnsiMarkdown::FlushMark(char next, std::string* out) {
  if (mark_.empty()) {
    return;
  }
  const std::string mark = std::exchange(mark_, "");
  const bool opens = next != ' ' && next != '\n';
  bool known = true;
  if (mark == "`") {
    known = code_ || next != '\n';
    code_ = known ? !code_ : code_;
  } else if (code_) {
    known = false;
  } else if (mark == "**") {
    known = bold_ || opens;
    bold_ = known ? !bold_ : bold_;
  } else if (mark == "*") {
    known = italic_ || (opens && !IsWord(last_));
    italic_ = known ? !italic_ : italic_;
  } else if (mark == "***") {
    known = (bold_ && italic_) || opens;
    bold_ = italic_ = known ? !(bold_ && italic_) : bold_;
  } else {
    known = false;
  }
  if (known) {
    Style(out);
  } else {
    *out += mark;
  }
  last_ = mark.back();
}

void AnsiMarkdown::TakeInline(char c, std::string* out) {
  if (in_fence_) {
    if (c == '\n') {
      EndLine(out);
    } else {
      out->push_back(c);
    }
    return;
  }
  if (!mark_.empty() && c == mark_[0] && mark_.size() < 3) {
    mark_.push_back(c);
    return;
  }
  FlushMark(c, out);
  if (c == '\n') {
    EndLine(out);
  } else if (c == '`' || (c == '*' && !code_)) {
    mark_.push_back(c);
  } else {
    out->push_back(c);
    last_ = c;
  }
}

// Styles end with their line: an emphasis that a model forgot to close stays small.
void AnsiMarkdown::EndLine(std::string* out) {
  in_line_ = false;
  if (!in_fence_ && (bold_ || italic_ || code_ || heading_ || quote_)) {
    bold_ = italic_ = code_ = heading_ = quote_ = false;
    *out += kPlain;
  }
  out->push_back('\n');
}

}  // namespace tessera::cli
