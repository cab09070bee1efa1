#include "cli/client/terminal_editor.h"

#include <array>
#include <list>
#include <string>
#include <string_view>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include <fcntl.h>
#include <stdlib.h>
#include <termios.h>
#include <unistd.h>

#include "tests/testing/status_matchers.h"

namespace tessera::cli {
namespace {

using ::tessera::testing::IsOk;
using ::testing::HasSubstr;

// A pseudoterminal: what is typed is in its buffer before Read, so nothing waits.
class TerminalEditorTest : public ::testing::Test {
 protected:
  TerminalEditorTest() {
    master_ = ::posix_openpt(O_RDWR | O_NOCTTY | O_NONBLOCK);
    EXPECT_EQ(::grantpt(master_), 0);
    EXPECT_EQ(::unlockpt(master_), 0);
    terminal_ = ::open(::ptsname(master_), O_RDWR | O_NOCTTY);
    // Raw from the beginning, so that the line discipline keeps nothing back.
    termios mode = {};
    ::tcgetattr(terminal_, &mode);
    ::cfmakeraw(&mode);
    ::tcsetattr(terminal_, TCSANOW, &mode);
  }
  ~TerminalEditorTest() override {
    ::close(terminal_);
    ::close(master_);
  }

  ReadLine Type(std::string_view keys) {
    EXPECT_EQ(::write(master_, keys.data(), keys.size()),
              static_cast<ssize_t>(keys.size()));
    TerminalEditor& editor = editor_.emplace_back(terminal_, terminal_);
    return ReadAgain(&editor);
  }

  ReadLine ReadAgain(TerminalEditor* editor) {
    auto line = editor->Read("> ");
    EXPECT_THAT(line, IsOk());
    std::array<char, 4096> shown;
    while (true) {
      const ssize_t got = ::read(master_, shown.data(), shown.size());
      if (got <= 0) {
        break;
      }
      shown_.append(shown.data(), static_cast<size_t>(got));
    }
    return line.value_or(ReadLine());
  }

  std::string Text(std::string_view keys) { return Type(keys).text; }

  int master_ = -1;
  int terminal_ = -1;
  std::list<TerminalEditor> editor_;
  std::string shown_;
};

TEST_F(TerminalEditorTest, EditsWithKeysOfTerminals) {
  EXPECT_EQ(Text("hello\r"), "hello");
  EXPECT_EQ(Text("hellx\x7fo\r"), "hello");
  EXPECT_EQ(Text("ello\x1b[Hh\r"), "hello");
  EXPECT_EQ(Text("ello\x01h\r"), "hello");
  EXPECT_EQ(Text("hllo\x1b[D\x1b[D\x1b[De\r"), "hello");
  EXPECT_EQ(Text("hello you\x17\x7f\r"), "hello");
  EXPECT_EQ(Text("x\x15hello\r"), "hello");
  EXPECT_EQ(Text("gr\xc3\xbcn\x1b[D\x7fu\r"), "grun");
}

TEST_F(TerminalEditorTest, UnknownSequencesDoNothing) {
  EXPECT_EQ(Text("a\x1b[99;99Zb\x1bOPc\r"), "abc");
}

TEST_F(TerminalEditorTest, SeveralLinesMakeOneMessage) {
  EXPECT_EQ(Text("one\\\rtwo\r"), "one\ntwo");
  EXPECT_EQ(Text("one\x1b\rtwo\r"), "one\ntwo");
  EXPECT_EQ(Text("one\x0atwo\r"), "one\ntwo");
  EXPECT_EQ(Text("\x1b[200~one\rtwo\r\x1b[201~\r"), "one\ntwo\n");
}

TEST_F(TerminalEditorTest, ControlKeysEndAndInterrupt) {
  EXPECT_EQ(Type("\x04").kind, ReadLine::Kind::kEnd);
  EXPECT_EQ(Type("text\x03").kind, ReadLine::Kind::kInterrupted);
  EXPECT_EQ(Text("ab\x01\x04\r"), "b");
}

TEST_F(TerminalEditorTest, ArrowsWalkThroughTheHistory) {
  Type("first\r");
  TerminalEditor& editor = editor_.back();
  for (const auto& [keys, expected] :
       {std::pair("second\r", "second"), std::pair("\x1b[A\x1b[A\r", "first"),
        std::pair("x\x1b[A\x1b[By\r", "xy")}) {
    const std::string_view typed(keys);
    ASSERT_EQ(::write(master_, typed.data(), typed.size()),
              static_cast<ssize_t>(typed.size()));
    EXPECT_EQ(ReadAgain(&editor).text, expected);
  }
}

TEST_F(TerminalEditorTest, PastedControlCharactersNeverReachTheScreen) {
  EXPECT_EQ(Text("\x1b[200~a\x1b]0;title\x07"
                 "b\x1b[201~\r"),
            "a\x1b]0;title\x07"
            "b");
  EXPECT_THAT(shown_, HasSubstr("> a?]0;title?b"));
}

TEST_F(TerminalEditorTest, TheTerminalIsAsItWasAfterwards) {
  termios before = {};
  ::tcgetattr(terminal_, &before);
  Text("a\r");
  termios after = {};
  ::tcgetattr(terminal_, &after);
  EXPECT_EQ(before.c_lflag, after.c_lflag);
  EXPECT_EQ(before.c_iflag, after.c_iflag);
  EXPECT_TRUE(shown_.ends_with("\x1b[?2004l"));
}

}  // namespace
}  // namespace tessera::cli
