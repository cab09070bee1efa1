#include "cli/client/sse_parser.h"

#include <string>
#include <string_view>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

#include "tests/testing/status_matchers.h"

namespace tessera::cli {
namespace {

using ::tessera::testing::IsOk;
using ::tessera::testing::StatusIs;
using ::testing::ElementsAre;
using ::testing::IsEmpty;

std::vector<SseEvent> Parse(std::string_view text) {
  SseParser parser;
  std::vector<SseEvent> events;
  EXPECT_THAT(parser.Append(text, &events), IsOk());
  return events;
}

TEST(SseParser, AnEventEndsAtItsEmptyLine) {
  EXPECT_THAT(Parse("data: one\n\ndata: two\n\ndata: unfinished\n"),
              ElementsAre(SseEvent{"", "one"}, SseEvent{"", "two"}));
}

TEST(SseParser, EveryLineEndIsALineEnd) {
  EXPECT_THAT(Parse("data: a\r\n\r\ndata: b\r\rdata: c\n\n"),
              ElementsAre(SseEvent{"", "a"}, SseEvent{"", "b"}, SseEvent{"", "c"}));
}

TEST(SseParser, DataLinesAreJoinedAndTheNameIsKept) {
  EXPECT_THAT(Parse("event: note\ndata: a\ndata:\ndata:  b\n\n"),
              ElementsAre(SseEvent{"note", "a\n\n b"}));
}

TEST(SseParser, TheNameDoesNotReachTheNextEvent) {
  EXPECT_THAT(Parse("event: lost\n\ndata: a\n\n"), ElementsAre(SseEvent{"", "a"}));
}

TEST(SseParser, CommentsAndOtherFieldsAreSkipped) {
  EXPECT_THAT(Parse(": keep-alive\n\nid: 7\nretry: 10\nother\ndata: a\n\n: bye\n\n"),
              ElementsAre(SseEvent{"", "a"}));
}

TEST(SseParser, AFieldWithoutColonHasAnEmptyValue) {
  EXPECT_THAT(Parse("data\n\n"), ElementsAre(SseEvent{"", ""}));
}

TEST(SseParser, AByteOrderMarkIsSkippedAtTheStartOnly) {
  EXPECT_THAT(Parse("\xEF\xBB\xBF"
                    "data: a\n\n\xEF\xBB\xBF"
                    "data: b\n\n"),
              ElementsAre(SseEvent{"", "a"}));
}

TEST(SseParser, TheCutsOfTheNetworkDoNotMatter) {
  const std::string text =
      "event: x\r\ndata: {\"a\":\"\xC3\xA9\"}\r\n\r\n: c\n\ndata: two\ndata: lines\n\n"
      "data: [DONE]\r\r";
  const std::vector<SseEvent> whole = Parse(text);
  ASSERT_EQ(whole.size(), 3U);
  for (size_t first = 0; first <= text.size(); ++first) {
    for (size_t second = first; second <= text.size(); ++second) {
      SseParser parser;
      std::vector<SseEvent> events;
      const std::string_view view = text;
      ASSERT_THAT(parser.Append(view.substr(0, first), &events), IsOk());
      ASSERT_THAT(parser.Append(view.substr(first, second - first), &events), IsOk());
      ASSERT_THAT(parser.Append(view.substr(second), &events), IsOk());
      ASSERT_EQ(events, whole) << "cut at " << first << " and " << second;
    }
  }
}

TEST(SseParser, AnEventAboveTheLimitIsAnError) {
  SseParser parser(16);
  std::vector<SseEvent> events;
  EXPECT_THAT(parser.Append("data: 0123\n\n", &events), IsOk());
  EXPECT_THAT(parser.Append("data: 01234567\ndata: 0123456789", &events),
              StatusIs(absl::StatusCode::kResourceExhausted));
}

TEST(SseParser, NoInputGivesNoEvents) { EXPECT_THAT(Parse(""), IsEmpty()); }

}  // namespace
}  // namespace tessera::cli
