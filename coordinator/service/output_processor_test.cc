#include "coordinator/service/output_processor.h"

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "gtest/gtest.h"

#include "tests/testing/stub_tokenizer.h"

namespace tessera::coordinator {
namespace {

// 0 "he", 1 "llo", 2 " END", 3 "EN", 4 "D", 5 first half and 6 second half of é, 7 "x".
const testing::StubTokenizer& Tokens() {
  static const testing::StubTokenizer tokenizer(
      {"he", "llo", " END", "EN", "D", "\xc3", "\xa9", "x"});
  return tokenizer;
}

OutputRules Stops(std::vector<std::string> strings, std::vector<int32_t> ids = {}) {
  OutputRules rules;
  rules.stop_strings = std::move(strings);
  rules.stop_token_ids = std::move(ids);
  return rules;
}

OutputProcessor Make(OutputRules rules) {
  return OutputProcessor(std::make_shared<OutputRules>(std::move(rules)), &Tokens());
}

// All text that the tokens bring; `last` is the last piece. The last token reaches the
// length.
std::string RunAll(OutputProcessor output, const std::vector<int32_t>& ids,
                   OutputPiece* last) {
  std::string text;
  for (size_t i = 0; i < ids.size(); ++i) {
    *last = output.Push(ids[i], i + 1 == ids.size());
    text += last->text;
    if (last->finished) {
      break;
    }
  }
  return text + last->rest;
}

TEST(OutputProcessor, TextWithoutStopsGoesOutAtOnce) {
  OutputProcessor output = Make({});
  EXPECT_EQ(output.Push(0, false).text, "he");
  const OutputPiece piece = output.Push(1, true);
  EXPECT_EQ(piece.text, "llo");
  EXPECT_TRUE(piece.finished);
  EXPECT_EQ(piece.reason, FinishReason::kLength);
}

TEST(OutputProcessor, AStopStringAcrossTokensIsHeldBackAndNeverSent) {
  OutputProcessor output = Make(Stops({"END"}));
  EXPECT_EQ(output.Push(0, false).text, "he");
  EXPECT_EQ(output.Push(3, false).text, "");
  const OutputPiece piece = output.Push(4, false);
  EXPECT_EQ(piece.text, "");
  EXPECT_TRUE(piece.finished);
  EXPECT_EQ(piece.reason, FinishReason::kStop);
  EXPECT_EQ(piece.stop_string, "END");
  EXPECT_EQ(piece.rest, "");
}

TEST(OutputProcessor, WhatTurnsOutToBeNoStopStringIsSentLater) {
  OutputProcessor output = Make(Stops({"END"}));
  EXPECT_EQ(output.Push(3, false).text, "");
  EXPECT_EQ(output.Push(7, false).text, "ENx");
  EXPECT_EQ(output.Push(3, false).text, "");
  EXPECT_EQ(output.Push(3, true).rest, "EN");
}

TEST(OutputProcessor, TheEarliestStopStringWins) {
  OutputPiece last;
  EXPECT_EQ(RunAll(Make(Stops({"D", "lo", "END"})), {0, 1, 2}, &last), "hel");
  EXPECT_EQ(last.stop_string, "lo");
}

TEST(OutputProcessor, TextOfTheStopIsIncludedOnRequest) {
  OutputRules rules = Stops({"EN"}, {4});
  rules.include_stop_text = true;
  OutputPiece last;
  EXPECT_EQ(RunAll(Make(rules), {0, 2}, &last), "he EN");
  EXPECT_EQ(RunAll(Make(rules), {0, 4}, &last), "heD");
  EXPECT_EQ(last.stop_token, 4);
}

TEST(OutputProcessor, AStopTokenEndsTheChoiceWithoutItsText) {
  OutputPiece last;
  EXPECT_EQ(RunAll(Make(Stops({"ENx"}, {1, 4})), {0, 3, 4}, &last), "heEN");
  EXPECT_EQ(last.reason, FinishReason::kStop);
  EXPECT_EQ(last.stop_token, 4);
}

TEST(OutputProcessor, NothingStopsBeforeMinTokens) {
  OutputRules rules = Stops({"he"}, {4});
  rules.min_tokens = 2;
  OutputPiece last;
  EXPECT_EQ(RunAll(Make(rules), {0, 4, 7, 4, 0}, &last), "heDx");
  EXPECT_EQ(last.stop_token, 4);
}

TEST(OutputProcessor, HalfACharacterIsHeldBackAndReplacedAtTheEnd) {
  OutputProcessor output = Make({});
  EXPECT_EQ(output.Push(5, false).text, "");
  EXPECT_EQ(output.Push(6, false).text, "é");
  EXPECT_EQ(output.Push(5, true).rest, "\xef\xbf\xbd");
}

}  // namespace
}  // namespace tessera::coordinator
