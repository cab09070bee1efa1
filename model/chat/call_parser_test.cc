#include "model/chat/call_parser.h"

#include "gtest/gtest.h"

#include "model/chat/control_tokens.h"

namespace tessera::model {
namespace {

const ProseRules kProse = {.block_open = std::string(kCallsBeginToken),
                           .may_open_reasoning = true};

struct Parsed {
  std::string reasoning;
  std::string content;
  std::string calls;  // name(arguments), one after the other

  bool operator==(const Parsed&) const = default;
};

void Add(const TurnParser::Delta& delta, Parsed* parsed) {
  parsed->reasoning += delta.reasoning;
  parsed->content += delta.content;
  for (const ToolCall& call : delta.tool_calls) {
    parsed->calls += call.name + "(" + call.arguments + ")";
  }
}

// In two pieces that meet at `cut`, and in pieces of one byte where `cut` is 0.
Parsed ParseCut(const CallFormat& format, std::string_view text, bool thinking,
                size_t cut) {
  CallTurnParser parser(&format, &kProse, thinking);
  Parsed parsed;
  if (cut == 0) {
    for (const char byte : text) {
      Add(parser.Push(std::string_view(&byte, 1)), &parsed);
    }
  } else {
    Add(parser.Push(text.substr(0, cut)), &parsed);
    Add(parser.Push(text.substr(cut)), &parsed);
  }
  Add(parser.Finish(), &parsed);
  return parsed;
}

// The same result wherever the text is cut.
Parsed Parse(const CallFormat& format, const std::string& text, bool thinking = false) {
  const Parsed whole = ParseCut(format, text, thinking, text.size());
  for (size_t cut = 0; cut < text.size(); ++cut) {
    const Parsed pieces = ParseCut(format, text, thinking, cut);
    EXPECT_EQ(pieces.reasoning, whole.reasoning) << text << " cut at " << cut;
    EXPECT_EQ(pieces.content, whole.content) << text << " cut at " << cut;
    EXPECT_EQ(pieces.calls, whole.calls) << text << " cut at " << cut;
  }
  return whole;
}

const std::string kBegin(kCallsBeginToken);
const std::string kEnd(kCallsEndToken);
std::string Call(const std::string& text) {
  return std::string(kCallBeginToken) + text + std::string(kCallEndToken);
}
const std::string kPlainCall = Call("f<｜tool▁sep｜>{\"a\": \"<b>\"}");
const std::string kFencedCall =
    Call("function<｜tool▁sep｜>f\n```json\n{\"a\": \"<b>\"}\n```");

TEST(CallTurnParser, TextAndCallsOfEveryFormat) {
  const Parsed expected = {.reasoning = "",
                           .content = "Text.",
                           .calls = "f({\"a\": \"<b>\"})f({\"a\": \"<b>\"})"};
  EXPECT_EQ(Parse(kV31Format, "Text." + kBegin + kPlainCall + kPlainCall + kEnd),
            expected);
  EXPECT_EQ(Parse(kV3Format, "Text." + kBegin + kFencedCall + "\n" + kFencedCall + kEnd),
            expected);
}

TEST(CallTurnParser, ReasoningOpenedByThePromptOrByTheTurn) {
  const Parsed expected = {.reasoning = "\nwhy\n", .content = "Text.", .calls = ""};
  EXPECT_EQ(Parse(kR1Format, "\nwhy\n</think>\n\nText.", true), expected);
  EXPECT_EQ(Parse(kR1Format, "<think>\nwhy\n</think>\n\nText.", false), expected);
}

TEST(CallTurnParser, ABlockEndsReasoningThatWasLeftOpen) {
  const Parsed parsed = Parse(kV31Format, "why" + kBegin + kPlainCall + kEnd, true);
  EXPECT_EQ(parsed.reasoning, "why");
  EXPECT_EQ(parsed.calls, "f({\"a\": \"<b>\"})");
}

TEST(CallTurnParser, ACallIsGivenAsSoonAsItIsClosed) {
  CallTurnParser parser(&kV31Format, &kProse, false);
  EXPECT_TRUE(
      parser.Push(kBegin + "<｜tool▁call▁begin｜>f<｜tool▁sep｜>{}").tool_calls.empty());
  EXPECT_EQ(parser.Push("<｜tool▁call▁end｜>").tool_calls.size(), 1U);
}

TEST(CallTurnParser, WhatFollowsTheBlockIsDropped) {
  EXPECT_EQ(Parse(kV31Format, kBegin + kPlainCall + kEnd + "bye").content, "");
}

TEST(CallTurnParser, ForgottenEndsAreMadeUp) {
  const std::string open = "<｜tool▁call▁begin｜>f<｜tool▁sep｜>{}";
  EXPECT_EQ(Parse(kV31Format, kBegin + open + kEnd).calls, "f({})");
  EXPECT_EQ(Parse(kV31Format, kBegin + open + open + kEnd).calls, "f({})f({})");
  EXPECT_EQ(Parse(kV31Format, kBegin + open).calls, "f({})");
  EXPECT_EQ(Parse(kV31Format, kBegin + kPlainCall + "<｜tool▁calls").content, "");
}

TEST(CallTurnParser, ABegunCallComesBackWithWhatThereIs) {
  EXPECT_EQ(Parse(kV31Format, kBegin + "<｜tool▁call▁begin｜>f<｜tool▁sep｜>[1").calls,
            "f([1)");
}

TEST(CallTurnParser, MalformedBlocksComeBackAsContent) {
  for (const std::string& block :
       {kBegin, kBegin + kEnd, kBegin + "words", kBegin + Call("f"),
        kBegin + "<｜tool▁call▁begin｜>f"}) {
    const Parsed parsed = Parse(kV31Format, "Text." + block);
    EXPECT_EQ(parsed.content, "Text." + block);
    EXPECT_EQ(parsed.calls, "");
  }
}

TEST(CallTurnParser, CallsBeforeAMalformedOneCount) {
  const Parsed parsed = Parse(kV31Format, kBegin + kPlainCall + "tail");
  EXPECT_EQ(parsed.calls, "f({\"a\": \"<b>\"})");
  EXPECT_EQ(parsed.content, "tail");
}

TEST(CallTurnParser, ALongTurnTakesLinearTime) {
  // Quadratic work on this would outlast the timeout of the test.
  std::string text = kBegin;
  for (int i = 0; i < 20000; ++i) {
    text += kPlainCall;
  }
  text += "<｜tool▁call▁begin｜>g<｜tool▁sep｜>" + std::string(1 << 20, '<');
  const Parsed whole = ParseCut(kV31Format, text, false, text.size());
  EXPECT_EQ(ParseCut(kV31Format, text, false, 0), whole);
  EXPECT_EQ(whole.calls.size(), 20000 * 15 + 3 + (1 << 20));
}

}  // namespace
}  // namespace tessera::model
