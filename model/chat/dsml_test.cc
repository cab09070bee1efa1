#include "model/chat/dsml.h"

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace tessera::model {
namespace {

const DsmlTags& Tags() {
  static const DsmlTags tags(kV4Preview);
  return tags;
}

constexpr std::string_view kBlock =
    "<｜DSML｜tool_calls>\n"
    "<｜DSML｜invoke name=\"f\">\n"
    "<｜DSML｜parameter name=\"a\" string=\"true\">x\"\ny</｜DSML｜parameter>\n"
    "<｜DSML｜parameter name=\"b\" string=\"false\">[1, 2]</｜DSML｜parameter>\n"
    "</｜DSML｜invoke>\n"
    "<｜DSML｜invoke name=\"g\">\n"
    "</｜DSML｜invoke>\n"
    "</｜DSML｜tool_calls>";

TEST(Dsml, ReadsABlockAndLeavesTheRest) {
  const std::string text = std::string(kBlock) + "rest";
  std::string_view rest = text;
  const auto calls = ReadToolCalls(Tags(), /*is_lenient=*/false, &rest);
  ASSERT_TRUE(calls.ok()) << calls.status();
  ASSERT_EQ(calls->size(), 2U);
  EXPECT_EQ((*calls)[0].name, "f");
  EXPECT_EQ((*calls)[0].arguments, R"({"a": "x\"\ny", "b": [1, 2]})");
  EXPECT_EQ((*calls)[1].arguments, "{}");
  EXPECT_EQ(rest, "rest");
}

TEST(Dsml, EveryTruncatedBlockIsRefused) {
  for (size_t length = 0; length < kBlock.size(); ++length) {
    std::string_view text = kBlock.substr(0, length);
    EXPECT_EQ(ReadToolCalls(Tags(), /*is_lenient=*/false, &text).status().code(),
              absl::StatusCode::kInvalidArgument)
        << length;
  }
}

void ExpectRefused(std::string_view from, std::string_view to) {
  std::string text(kBlock);
  text.replace(text.find(from), from.size(), to);
  std::string_view rest = text;
  EXPECT_EQ(ReadToolCalls(Tags(), /*is_lenient=*/false, &rest).status().code(),
            absl::StatusCode::kInvalidArgument)
      << text;
}

TEST(Dsml, EachBrokenRuleIsRefused) {
  ExpectRefused("[1, 2]", "[1, ");                           // no JSON
  ExpectRefused("name=\"b\"", "name=\"a\"");                 // twice
  ExpectRefused(" string=\"true\"", "");                     // no string attribute
  ExpectRefused("string=\"true\"", "string=\"yes\"");        // unknown value
  ExpectRefused("name=\"f\">\n", "name=\"f\">");             // no line break
  ExpectRefused("tool_calls>\n<", "tool_calls>\nwords\n<");  // text between
}

TEST(Dsml, ABlockWithoutCallsIsRefused) {
  std::string_view text = "<｜DSML｜tool_calls>\n</｜DSML｜tool_calls>";
  EXPECT_EQ(ReadToolCalls(Tags(), /*is_lenient=*/false, &text).status().code(),
            absl::StatusCode::kInvalidArgument);
}

TEST(Dsml, ALenientReaderTakesACutAfterAParameterAndAnyValue) {
  const auto read = [](std::string_view text) {
    return ReadToolCalls(Tags(), /*is_lenient=*/true, &text);
  };
  const std::string_view line_end = "[1, 2]</｜DSML｜parameter>\n";
  const std::string cut(kBlock.substr(0, kBlock.find(line_end) + line_end.size()));
  const auto calls = read(cut);
  ASSERT_TRUE(calls.ok()) << calls.status();
  ASSERT_EQ(calls->size(), 1U);
  EXPECT_EQ((*calls)[0].arguments, R"({"a": "x\"\ny", "b": [1, 2]})");
  EXPECT_FALSE(read(cut.substr(0, cut.size() - 1)).ok());
  std::string no_json = cut;
  no_json.replace(no_json.find("[1, 2]"), 6, "[1, ");
  const auto as_is = read(no_json);
  ASSERT_TRUE(as_is.ok()) << as_is.status();
  EXPECT_EQ((*as_is)[0].arguments, R"({"a": "x\"\ny", "b": [1, })");
}

TEST(Dsml, AnOpenValueKeepsItsStringOpen) {
  std::string arguments = "{";
  AppendArgument("a", "x", /*is_string=*/true, /*is_open=*/false, &arguments);
  AppendArgument("b", "y\"", /*is_string=*/true, /*is_open=*/true, &arguments);
  EXPECT_EQ(arguments, R"({"a": "x", "b": "y\")");
}

}  // namespace
}  // namespace tessera::model
