#include "model/chat/strict_turn.h"

#include <array>

#include "gtest/gtest.h"

#include "model/chat/control_tokens.h"

namespace tessera::model {
namespace {

absl::StatusOr<ParsedTurn> Read(const EncodingGeneration& generation,
                                std::string_view text, bool thinking) {
  return ReadTurn(generation, DsmlTags(generation), text, thinking);
}

bool IsRefused(const EncodingGeneration& generation, std::string_view text,
               bool thinking) {
  return Read(generation, text, thinking).status().code() ==
         absl::StatusCode::kInvalidArgument;
}

const std::string kEos(kEosToken);
const std::string kBlock =
    "\n\n<｜DSML｜function_calls>\n<｜DSML｜invoke name=\"f\">\n</｜DSML｜invoke>\n"
    "</｜DSML｜function_calls>";

TEST(StrictTurn, TheEndOfTheSentenceIsWantedWhereTheGenerationSaysSo) {
  EXPECT_TRUE(IsRefused(kV32, "text", false));
  EXPECT_FALSE(IsRefused(kV32, "text" + kEos, false));
  EXPECT_FALSE(IsRefused(kV4Preview, "text", false));
  EXPECT_FALSE(IsRefused(kV4Preview, "text" + kEos, false));
}

TEST(StrictTurn, LineBreaksAfterTheReasoningAreKeptWhereTheGenerationSaysSo) {
  EXPECT_EQ(Read(kV32, "why</think>\n\ntext" + kEos, true)->content, "\n\ntext");
  EXPECT_EQ(Read(kV41, "why</think>\n\ntext", true)->content, "text");
  EXPECT_EQ(Read(kV41, "\n\ntext", false)->content, "\n\ntext");
}

TEST(StrictTurn, ControlTokensInTheProseAreRefused) {
  for (const std::string_view token :
       {kBosToken, kEosToken, kThinkToken, kEndThinkToken, kDsmlToken}) {
    const std::string text = "a" + std::string(token) + "b";
    EXPECT_TRUE(IsRefused(kV32, text + kEos, false)) << token;
    EXPECT_TRUE(IsRefused(kV4July, text, false)) << token;
  }
}

TEST(StrictTurn, ABlockEndsTheTurn) {
  const auto turn = Read(kV32, "why</think>text" + kBlock + kEos, true);
  ASSERT_TRUE(turn.ok()) << turn.status();
  EXPECT_EQ(turn->reasoning, "why");
  EXPECT_EQ(turn->content, "text");
  ASSERT_EQ(turn->tool_calls.size(), 1U);
  EXPECT_EQ(turn->tool_calls[0].name, "f");
  EXPECT_TRUE(IsRefused(kV32, "text" + kBlock + "bye" + kEos, false));
}

TEST(StrictTurn, ReasoningIsCutOffWithItsTag) {
  const std::array<std::string_view, 1> tokens = {kUserToken};
  std::string_view text = "why</think>rest";
  EXPECT_EQ(*ReadReasoning(tokens, &text), "why");
  EXPECT_EQ(text, "rest");
  text = "no end";
  EXPECT_FALSE(ReadReasoning(tokens, &text).ok());
  text = "a<｜User｜></think>";
  EXPECT_FALSE(ReadReasoning(tokens, &text).ok());
}

}  // namespace
}  // namespace tessera::model
