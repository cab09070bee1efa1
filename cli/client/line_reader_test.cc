#include "cli/client/line_reader.h"

#include <string>

#include "gtest/gtest.h"
#include <unistd.h>

#include "tests/testing/status_matchers.h"

namespace tessera::cli {
namespace {

using ::tessera::testing::IsOk;
using ::tessera::testing::StatusIs;

// A pipe whose ends close with it.
class Pipe {
 public:
  Pipe() { EXPECT_EQ(::pipe(ends_), 0); }
  ~Pipe() {
    CloseWriter();
    ::close(ends_[0]);
  }
  void Write(const std::string& text) {
    EXPECT_EQ(::write(ends_[1], text.data(), text.size()),
              static_cast<ssize_t>(text.size()));
  }
  void CloseWriter() {
    if (ends_[1] >= 0) {
      ::close(ends_[1]);
      ends_[1] = -1;
    }
  }
  int reader() const { return ends_[0]; }

 private:
  int ends_[2] = {-1, -1};
};

TEST(LineReader, ReadsLinesAndTheLastWithoutItsEnd) {
  Pipe input;
  input.Write("one\r\n\ntwo");
  input.CloseWriter();
  LineReader reader(input.reader(), -1);
  for (const char* expected : {"one", "", "two"}) {
    const auto line = reader.Next();
    ASSERT_THAT(line, IsOk());
    EXPECT_EQ(line->kind, ReadLine::Kind::kLine);
    EXPECT_EQ(line->text, expected);
  }
  EXPECT_EQ(reader.Next()->kind, ReadLine::Kind::kEnd);
}

TEST(LineReader, AnInterruptDropsTheUnfinishedLine) {
  Pipe input;
  Pipe interrupt;
  LineReader reader(input.reader(), interrupt.reader());
  input.Write("one\nunfini");
  EXPECT_EQ(reader.Next()->text, "one");
  interrupt.Write("x");
  EXPECT_EQ(reader.Next()->kind, ReadLine::Kind::kInterrupted);
  char taken = 0;
  ASSERT_EQ(::read(interrupt.reader(), &taken, 1), 1);
  input.Write("two\n");
  EXPECT_EQ(reader.Next()->text, "two");
}

TEST(LineReader, ALineAboveTheLimitIsAnError) {
  Pipe input;
  input.Write(std::string(100, 'x'));
  LineReader reader(input.reader(), -1, 64);
  EXPECT_THAT(reader.Next(), StatusIs(absl::StatusCode::kResourceExhausted));
}

}  // namespace
}  // namespace tessera::cli
