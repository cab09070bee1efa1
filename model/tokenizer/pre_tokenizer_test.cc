#include "model/tokenizer/pre_tokenizer.h"

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace tessera::model {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

std::vector<std::string> Pieces(const std::vector<std::string>& patterns,
                                std::string_view text) {
  auto pre_tokenizer = PreTokenizer::Create(patterns);
  EXPECT_TRUE(pre_tokenizer.ok()) << pre_tokenizer.status();
  std::vector<std::string_view> pieces;
  (*pre_tokenizer)->Split(text, &pieces);
  return {pieces.begin(), pieces.end()};
}

TEST(PreTokenizer, MatchesAndWhatLiesBetweenArePieces) {
  EXPECT_THAT(Pieces({R"(\p{N}{1,3})"}, "ab12345c"), ElementsAre("ab", "123", "45", "c"));
}

TEST(PreTokenizer, LaterPatternsSeePiecesAsTextsOfTheirOwn) {
  // Without the cut before 1, the lookahead would leave one blank to the digit.
  EXPECT_THAT(Pieces({R"(\p{N})", R"(\s+(?!\S)|\s+)"}, "a  1"),
              ElementsAre("a", "  ", "1"));
  EXPECT_THAT(Pieces({R"(\s+(?!\S)|\s+)"}, "a  1"), ElementsAre("a", " ", " ", "1"));
}

TEST(PreTokenizer, EmptyMatchesCutBetweenCharacters) {
  EXPECT_THAT(Pieces({"x*"}, "éx"), ElementsAre("é", "x"));
}

TEST(PreTokenizer, MongolianVowelSeparatorIsNoWhitespace) {
  EXPECT_THAT(Pieces({R"(\s+)"}, "a\u180Eb\u2003c"),
              ElementsAre("a\u180Eb", "\u2003", "c"));
  EXPECT_THAT(Pieces({R"([\s,]+)"}, "a, b\u180E"), ElementsAre("a", ", ", "b\u180E"));
}

TEST(PreTokenizer, EscapesOtherThanWhitespaceStay) {
  EXPECT_EQ(SpellOutWhitespace(R"([\]\\]\\s\p{L})"), R"([\]\\]\\s\p{L})");
}

TEST(PreTokenizer, ABadPatternIsNamed) {
  const auto pre_tokenizer = PreTokenizer::Create({"a", "(b"});
  ASSERT_EQ(pre_tokenizer.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(pre_tokenizer.status().message()), HasSubstr("(b"));
}

TEST(PreTokenizer, ALimitLeavesTheRestWhole) {
  const std::string text(64, 'a');
  EXPECT_THAT(Pieces({"(a+)+(?=b)"}, text), ElementsAre(text));
}

}  // namespace
}  // namespace tessera::model
