#include "model/chat/call_format.h"

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace tessera::model {
namespace {

constexpr std::string_view kBlock =
    "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>f<｜tool▁sep｜>{\"a\": 1}"
    "<｜tool▁call▁end｜><｜tool▁call▁begin｜>g<｜tool▁sep｜>{}<｜tool▁call▁end｜>"
    "<｜tool▁calls▁end｜>";
constexpr std::string_view kFencedBlock =
    "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>f\n```json\n"
    "{\"a\": 1}\n```<｜tool▁call▁end｜>\n<｜tool▁call▁begin｜>function<｜tool▁sep｜>g\n"
    "```json\n{}\n```<｜tool▁call▁end｜><｜tool▁calls▁end｜>";

TEST(CallFormat, ReadsABlockAndLeavesTheRest) {
  for (const auto& [format, block] :
       {std::pair(&kV31Format, kBlock), std::pair(&kV3Format, kFencedBlock)}) {
    const std::string text = std::string(block) + "rest";
    std::string_view rest = text;
    const auto calls = ReadCalls(*format, &rest);
    ASSERT_TRUE(calls.ok()) << calls.status();
    ASSERT_EQ(calls->size(), 2U);
    EXPECT_EQ((*calls)[0].name, "f");
    EXPECT_EQ((*calls)[0].arguments, "{\"a\": 1}");
    EXPECT_EQ((*calls)[1].name, "g");
    EXPECT_EQ((*calls)[1].arguments, "{}");
    EXPECT_EQ(rest, "rest");
  }
}

TEST(CallFormat, EveryTruncatedBlockIsRefused) {
  for (const auto& [format, block] :
       {std::pair(&kV31Format, kBlock), std::pair(&kR1Format, kFencedBlock)}) {
    for (size_t length = 0; length < block.size(); ++length) {
      std::string_view text = block.substr(0, length);
      EXPECT_EQ(ReadCalls(*format, &text).status().code(),
                absl::StatusCode::kInvalidArgument)
          << length;
    }
  }
}

TEST(CallFormat, ABlockOfAnotherFormatIsRefused) {
  std::string_view text = kBlock;
  EXPECT_FALSE(ReadCalls(kV3Format, &text).ok());
  std::string bad(kBlock);
  bad.replace(bad.find("{\"a\": 1}"), 8, "{\"a\": ");
  text = bad;
  EXPECT_FALSE(ReadCalls(kV31Format, &text).ok());
}

TEST(CallFormat, TheInstructionsShowACallOfTheirFormat) {
  EXPECT_THAT(
      MakeCallsText(kV31Format),
      testing::HasSubstr(
          "tool use:\n<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>tool_call_name"
          "<｜tool▁sep｜>tool_call_arguments<｜tool▁call▁end｜>"
          "{additional_tool_calls}<｜tool▁calls▁end｜>\n\nWhere:\n- `tool_call_"));
  EXPECT_THAT(MakeCallsText(kV3Format),
              testing::HasSubstr("function<｜tool▁sep｜>tool_call_name\n```json\n"
                                 "tool_call_arguments\n```<｜tool▁call▁end｜>"));
}

std::string CallOf(const CallFormat& format, std::string_view text,
                   bool is_open = false) {
  const auto call = ReadCallText(format, text, is_open);
  return call.has_value() ? call->name + "(" + call->arguments + ")" : "none";
}

TEST(CallFormat, WhitespaceAndMissingFencesDoNotMatter) {
  EXPECT_EQ(CallOf(kV31Format, " f <｜tool▁sep｜>\n{\"a\": 1} \n"), "f({\"a\": 1})");
  EXPECT_EQ(CallOf(kV31Format, "f<｜tool▁sep｜>```json\n{}\n```"), "f({})");
  EXPECT_EQ(CallOf(kV3Format, "function<｜tool▁sep｜>f\n{\"a\": 1}"), "f({\"a\": 1})");
  EXPECT_EQ(CallOf(kV3Format, "function<｜tool▁sep｜>f\n```\n{}```\n"), "f({})");
}

TEST(CallFormat, ACallNeedsAWholeName) {
  EXPECT_EQ(CallOf(kV31Format, "f"), "none");
  EXPECT_EQ(CallOf(kV31Format, " <｜tool▁sep｜>{}"), "none");
  EXPECT_EQ(CallOf(kV3Format, "function<｜tool▁sep｜>f"), "none");
  EXPECT_EQ(CallOf(kV31Format, std::string(2000, 'f') + "<｜tool▁sep｜>{}"), "none");
}

TEST(CallFormat, AnOpenCallKeepsWhatCame) {
  EXPECT_EQ(CallOf(kV31Format, "f<｜tool▁sep｜>{\"a\": \"x", true), "f({\"a\": \"x)");
  EXPECT_EQ(CallOf(kV3Format, "function<｜tool▁sep｜>f\n```json\n{\"a\"", true),
            "f({\"a\")");
  EXPECT_EQ(CallOf(kV31Format, "f<｜tool▁sep｜>", true), "f()");
}

}  // namespace
}  // namespace tessera::model
