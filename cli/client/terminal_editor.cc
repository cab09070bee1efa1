#include "cli/client/terminal_editor.h"

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <utility>

#include <poll.h>
#include <sys/ioctl.h>
#include <termios.h>
#include <unistd.h>
#include <utf8proc.h>

#include "common/status.h"

namespace tessera::cli {
namespace {

constexpr int kEscapeWaitMs = 30;
constexpr int kDefaultColumns = 80;
constexpr size_t kMaxSequenceBytes = 16;
constexpr std::string_view kPasteEnd = "\x1b[201~";

constexpr int Control(char letter) { return letter & 0x1f; }

// Raw input and bracketed pastes for as long as it lives.
class RawMode {
 public:
  RawMode(int input, int output) : input_(input), output_(output) {
    active_ = ::tcgetattr(input_, &before_) == 0;
    if (!active_) {
      return;
    }
    termios raw = before_;
    raw.c_iflag &= ~static_cast<tcflag_t>(BRKINT | ICRNL | INPCK | ISTRIP | IXON);
    raw.c_lflag &= ~static_cast<tcflag_t>(ECHO | ICANON | IEXTEN | ISIG);
    raw.c_cc[VMIN] = 1;
    raw.c_cc[VTIME] = 0;
    active_ = ::tcsetattr(input_, TCSADRAIN, &raw) == 0;
    Send("\x1b[?2004h");
  }
  ~RawMode() {
    if (active_) {
      Send("\x1b[?2004l");
      ::tcsetattr(input_, TCSADRAIN, &before_);
    }
  }
  RawMode(const RawMode&) = delete;
  RawMode& operator=(const RawMode&) = delete;

  bool active() const { return active_; }

 private:
  void Send(std::string_view text) const {
    [[maybe_unused]] const ssize_t sent = ::write(output_, text.data(), text.size());
  }

  const int input_;
  const int output_;
  termios before_ = {};
  bool active_ = false;
};

int Columns(int output) {
  winsize size = {};
  return ::ioctl(output, TIOCGWINSZ, &size) == 0 && size.ws_col > 0 ? size.ws_col
                                                                    : kDefaultColumns;
}

// One character as it is shown, and the columns that it takes.
struct Glyph {
  std::string text;
  int width = 1;
};

Glyph GlyphAt(std::string_view text, size_t* position) {
  utf8proc_int32_t code = 0;
  const auto rest = static_cast<utf8proc_ssize_t>(text.size() - *position);
  const utf8proc_ssize_t size = utf8proc_iterate(
      reinterpret_cast<const utf8proc_uint8_t*>(text.data() + *position), rest, &code);
  if (size <= 0) {
    ++*position;
    return {"?", 1};
  }
  const std::string bytes(text.substr(*position, static_cast<size_t>(size)));
  *position += static_cast<size_t>(size);
  if (code == '\n') {
    return {"⏎", 1};
  }
  if (code == '\t') {
    return {" ", 1};
  }
  const bool control = code < 0x20 || (code >= 0x7f && code < 0xa0);
  return control ? Glyph{"?", 1} : Glyph{bytes, utf8proc_charwidth(code)};
}

}  // namespace

void TerminalEditor::Write(std::string_view text) const {
  while (!text.empty()) {
    const ssize_t sent = ::write(output_, text.data(), text.size());
    if (sent < 0 && errno != EINTR) {
      return;
    }
    text.remove_prefix(sent < 0 ? 0 : static_cast<size_t>(sent));
  }
}

int TerminalEditor::NextByte() {
  unsigned char byte = 0;
  ssize_t got = 0;
  do {
    got = ::read(input_, &byte, 1);
  } while (got < 0 && errno == EINTR);
  return got == 1 ? byte : -1;
}

bool TerminalEditor::HasByteSoon() const {
  pollfd wait = {input_, POLLIN, 0};
  return ::poll(&wait, 1, kEscapeWaitMs) > 0;
}

void TerminalEditor::Draw(std::string_view prompt) {
  const int room = std::max(Columns(output_) - static_cast<int>(prompt.size()) - 1, 8);
  std::vector<Glyph> glyphs;
  int before = 0;  // columns up to the cursor
  for (size_t position = 0; position < line_.text().size();) {
    const bool counts = position < line_.cursor();
    glyphs.push_back(GlyphAt(line_.text(), &position));
    before += counts ? glyphs.back().width : 0;
  }
  // From the first glyph on with which the cursor is in sight.
  size_t first = 0;
  for (; before >= room; ++first) {
    before -= glyphs[first].width;
  }
  std::string row = "\r" + std::string(prompt);
  int width = 0;
  for (size_t i = first; i < glyphs.size() && width + glyphs[i].width <= room; ++i) {
    row += glyphs[i].text;
    width += glyphs[i].width;
  }
  row += "\x1b[K\r";
  const int column = static_cast<int>(prompt.size()) + before;
  row += column > 0 ? "\x1b[" + std::to_string(column) + "C" : "";
  Write(row);
}

void TerminalEditor::TakePaste() {
  std::string text;
  while (!text.ends_with(kPasteEnd) && text.size() < EditLine::kMaxBytes) {
    const int byte = NextByte();
    if (byte < 0) {
      return;
    }
    // Terminals send the Return key for a line's end.
    text.push_back(byte == '\r' ? '\n' : static_cast<char>(byte));
  }
  if (text.ends_with(kPasteEnd)) {
    text.resize(text.size() - kPasteEnd.size());
  }
  line_.Insert(text);
}

void TerminalEditor::TakeSequence(const std::string& sequence) {
  static constexpr std::pair<std::string_view, void (EditLine::*)()> kKeys[] = {
      {"[A", &EditLine::Older},       {"[B", &EditLine::Newer},
      {"OA", &EditLine::Older},       {"OB", &EditLine::Newer},
      {"[C", &EditLine::Right},       {"[D", &EditLine::Left},
      {"OC", &EditLine::Right},       {"OD", &EditLine::Left},
      {"[H", &EditLine::Begin},       {"[F", &EditLine::End},
      {"OH", &EditLine::Begin},       {"OF", &EditLine::End},
      {"[1~", &EditLine::Begin},      {"[4~", &EditLine::End},
      {"[7~", &EditLine::Begin},      {"[8~", &EditLine::End},
      {"[3~", &EditLine::EraseAfter}, {"[1;5C", &EditLine::WordRight},
      {"[1;5D", &EditLine::WordLeft}, {"[1;3C", &EditLine::WordRight},
      {"[1;3D", &EditLine::WordLeft}, {"b", &EditLine::WordLeft},
      {"f", &EditLine::WordRight},    {"\x7f", &EditLine::EraseWordBefore},
  };
  for (const auto& [name, action] : kKeys) {
    if (sequence == name) {
      (line_.*action)();
      return;
    }
  }
}

void TerminalEditor::TakeEscape() {
  if (!HasByteSoon()) {
    return;
  }
  std::string sequence(1, static_cast<char>(NextByte()));
  if (sequence == "\r" || sequence == "\n") {
    line_.Insert("\n");
    return;
  }
  // "[" begins parameters that end with a letter or "~"; "O" one more byte.
  if (sequence == "[" || sequence == "O") {
    int byte = 0;
    do {
      byte = NextByte();
      sequence.push_back(static_cast<char>(byte));
    } while (byte >= 0 && sequence[0] == '[' && (byte < 0x40 || byte > 0x7e) &&
             sequence.size() < kMaxSequenceBytes);
  }
  if (sequence == "[200~") {
    TakePaste();
  } else {
    TakeSequence(sequence);
  }
}

void TerminalEditor::TakeText(int first) {
  std::string bytes(1, static_cast<char>(first));
  const int more = first >= 0xf0 ? 3 : first >= 0xe0 ? 2 : first >= 0xc0 ? 1 : 0;
  for (int i = 0; i < more; ++i) {
    bytes.push_back(static_cast<char>(NextByte()));
  }
  line_.Insert(bytes);
}

void TerminalEditor::TakeControl(int key) {
  static constexpr std::pair<int, void (EditLine::*)()> kKeys[] = {
      {Control('A'), &EditLine::Begin},
      {Control('E'), &EditLine::End},
      {Control('B'), &EditLine::Left},
      {Control('F'), &EditLine::Right},
      {Control('P'), &EditLine::Older},
      {Control('N'), &EditLine::Newer},
      {Control('K'), &EditLine::EraseToEnd},
      {Control('U'), &EditLine::EraseToBegin},
      {Control('W'), &EditLine::EraseWordBefore},
      {Control('D'), &EditLine::EraseAfter},
      {Control('H'), &EditLine::EraseBefore},
      {0x7f, &EditLine::EraseBefore},
  };
  for (const auto& [code, action] : kKeys) {
    if (key == code) {
      (line_.*action)();
    }
  }
  if (key == Control('J')) {
    line_.Insert("\n");
  } else if (key == Control('I')) {
    line_.Insert("    ");
  } else if (key == Control('L')) {
    Write("\x1b[H\x1b[2J");
  }
}

TerminalEditor::Outcome TerminalEditor::TakeEnter() {
  if (line_.cursor() == line_.text().size() && line_.text().ends_with('\\')) {
    line_.EraseBefore();
    line_.Insert("\n");
    return Outcome::kGoOn;
  }
  return Outcome::kLine;
}

TerminalEditor::Outcome TerminalEditor::TakeKey(int key) {
  if (key < 0 || (key == Control('D') && line_.text().empty())) {
    return Outcome::kEnd;
  }
  if (key == Control('C')) {
    return Outcome::kInterrupted;
  }
  if (key == '\r') {
    return TakeEnter();
  }
  if (key == 0x1b) {
    TakeEscape();
  } else if (key < 0x20 || key == 0x7f) {
    TakeControl(key);
  } else {
    TakeText(key);
  }
  return Outcome::kGoOn;
}

absl::StatusOr<ReadLine> TerminalEditor::Read(std::string_view prompt) {
  const RawMode raw(input_, output_);
  if (!raw.active()) {
    return UnavailableF("the terminal cannot be set up: {}", std::strerror(errno));
  }
  Outcome outcome = Outcome::kGoOn;
  while (outcome == Outcome::kGoOn) {
    Draw(prompt);
    outcome = TakeKey(NextByte());
  }
  if (outcome == Outcome::kLine) {
    line_.End();
    Draw(prompt);
    Write("\r\n");
    return ReadLine{ReadLine::Kind::kLine, line_.Take()};
  }
  line_.Clear();
  if (outcome == Outcome::kInterrupted) {
    Write("^C");
  }
  return ReadLine{
      outcome == Outcome::kEnd ? ReadLine::Kind::kEnd : ReadLine::Kind::kInterrupted, ""};
}

}  // namespace tessera::cli
