#include "model/chat/turn_parser.h"

#include "gtest/gtest.h"

namespace tessera::model {
namespace {

const DsmlTags& Tags() {
  static const DsmlTags tags(kV4Preview);
  return tags;
}

const ProseRules& Prose() {
  static const ProseRules prose = {.block_open = Tags().calls_open,
                                   .blank_line_before_block = true};
  return prose;
}

struct Parsed {
  std::string reasoning;
  std::string content;
  std::string calls;  // name(arguments), one after the other
};

Parsed Parse(std::string_view text, bool thinking, size_t piece_bytes) {
  DsmlTurnParser parser(&Tags(), &Prose(), thinking);
  Parsed parsed;
  const auto add = [&parsed](const TurnParser::Delta& delta) {
    parsed.reasoning += delta.reasoning;
    parsed.content += delta.content;
    for (const ToolCall& call : delta.tool_calls) {
      parsed.calls += call.name + "(" + call.arguments + ")";
    }
  };
  for (size_t pos = 0; pos < text.size(); pos += piece_bytes) {
    add(parser.Push(text.substr(pos, piece_bytes)));
  }
  add(parser.Finish());
  return parsed;
}

// The same result for the whole text, and byte by byte.
Parsed ParseBothWays(std::string_view text, bool thinking) {
  const Parsed whole = Parse(text, thinking, text.size() + 1);
  const Parsed bytes = Parse(text, thinking, 1);
  EXPECT_EQ(whole.reasoning, bytes.reasoning) << text;
  EXPECT_EQ(whole.content, bytes.content) << text;
  EXPECT_EQ(whole.calls, bytes.calls) << text;
  return whole;
}

const std::string kOpen = "\n\n<｜DSML｜tool_calls>\n";
const std::string kCall = "<｜DSML｜invoke name=\"f\">\n</｜DSML｜invoke>\n";

TEST(DsmlTurnParser, TextThatMayBeATagIsHeldBackUntilItIsNone) {
  DsmlTurnParser parser(&Tags(), &Prose(), /*thinking=*/true);
  EXPECT_EQ(parser.Push("because </th").reasoning, "because ");
  EXPECT_EQ(parser.Push("e").reasoning, "</the");
  EXPECT_EQ(parser.Push("\n\n<｜DSML｜tool").reasoning, "");
  EXPECT_EQ(parser.Push("box").reasoning, "\n\n<｜DSML｜toolbox");
  EXPECT_EQ(parser.Push("</think>hi").content, "hi");
}

TEST(DsmlTurnParser, ACallIsGivenAsSoonAsItIsClosed) {
  DsmlTurnParser parser(&Tags(), &Prose(), /*thinking=*/false);
  EXPECT_TRUE(parser.Push(kOpen + "<｜DSML｜invoke name=\"f\">\n").tool_calls.empty());
  const TurnParser::Delta delta = parser.Push("</｜DSML｜invoke>");
  ASSERT_EQ(delta.tool_calls.size(), 1U);
  EXPECT_EQ(delta.tool_calls[0].name, "f");
  EXPECT_EQ(delta.tool_calls[0].arguments, "{}");
}

TEST(DsmlTurnParser, MalformedBlocksComeBackAsContent) {
  for (const std::string& block :
       {kOpen, kOpen + "</｜DSML｜tool_calls>", kOpen + "words",
        kOpen + "<｜DSML｜invoke name=\"f", kOpen + "<｜DSML｜invoke name=\"f\n\">",
        kOpen + "<｜DSML｜invoke>",
        kOpen + "<｜DSML｜invoke name=\"f\">\nwords\n</｜DSML｜invoke>",
        kOpen + "<｜DSML｜invoke name=\"f\">\n<｜DSML｜parameter "
                "name=\"a\">1</｜DSML｜parameter>\n",
        kOpen + "<｜DSML｜invoke name=\"" + std::string(2000, 'f') + "\">"}) {
    const Parsed parsed = ParseBothWays("Text." + block, /*thinking=*/false);
    EXPECT_EQ(parsed.content, "Text." + block);
    EXPECT_EQ(parsed.calls, "");
  }
}

TEST(DsmlTurnParser, CallsBeforeAMalformedOneCount) {
  const Parsed parsed = ParseBothWays(kOpen + kCall + "<｜DSML｜invoke>tail", false);
  EXPECT_EQ(parsed.calls, "f({})");
  EXPECT_EQ(parsed.content, "\n<｜DSML｜invoke>tail");
}

TEST(DsmlTurnParser, ABegunClosingTagIsNoContent) {
  EXPECT_EQ(ParseBothWays(kOpen + kCall + "</｜DSML｜tool", false).content, "");
  EXPECT_EQ(ParseBothWays(kOpen + kCall, false).content, "");
}

TEST(DsmlTurnParser, ABegunCallComesBackWithWhatThereIs) {
  const std::string call =
      kOpen + "<｜DSML｜invoke name=\"f\">\n<｜DSML｜parameter name=\"a\" string=";
  EXPECT_EQ(ParseBothWays(call + "\"true\">x</｜DS", false).calls,
            "f({\"a\": \"x</｜DS)");
  EXPECT_EQ(ParseBothWays(call + "\"false\">[1", false).calls, "f({\"a\": [1)");
  EXPECT_EQ(ParseBothWays(call, false).calls, "f({)");
}

TEST(DsmlTurnParser, TheFirstEndOfATagCounts) {
  const std::string text =
      kOpen +
      "<｜DSML｜invoke name=\"f\">\n"
      "<｜DSML｜parameter name=\"a\" string=\"false\">\"\\\" string=\\\"true\\\">\""
      "</｜DSML｜parameter>\n</｜DSML｜invoke>\n</｜DSML｜tool_calls>";
  EXPECT_EQ(ParseBothWays(text, false).calls, R"(f({"a": "\" string=\"true\">"}))");
}

TEST(DsmlTurnParser, LineBreaksAfterTheReasoningAreDropped) {
  EXPECT_EQ(ParseBothWays("r</think>\n\n\nanswer\n", true).content, "answer\n");
  EXPECT_EQ(ParseBothWays("\n\nanswer", false).content, "\n\nanswer");
}

TEST(DsmlTurnParser, ALongTurnTakesLinearTime) {
  // Quadratic work on this would outlast the timeout of the test.
  std::string text = kOpen;
  std::string expected;
  for (int i = 0; i < 20000; ++i) {
    text +=
        "<｜DSML｜invoke name=\"f\">\n<｜DSML｜parameter name=\"a\" string=\"true\">"
        "0123456789</｜DSML｜parameter>\n</｜DSML｜invoke>\n";
    expected += "f({\"a\": \"0123456789\"})";
  }
  EXPECT_EQ(ParseBothWays(text, false).calls, expected);
  const std::string value(1 << 20, '<');
  EXPECT_EQ(
      ParseBothWays(kOpen +
                        "<｜DSML｜invoke name=\"f\">\n<｜DSML｜parameter name=\"a\" "
                        "string=\"false\">" +
                        value,
                    false)
          .calls,
      "f({\"a\": " + value + ")");
}

}  // namespace
}  // namespace tessera::model
