#include "model/tokenizer/deepseek_splitter.h"

#include <memory>
#include <random>
#include <string>
#include <string_view>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

#include "model/tokenizer/pre_tokenizer.h"
#include "model/tokenizer/utf8.h"

namespace tessera::model {
namespace {

using testing::ElementsAre;

class DeepSeekSplitterTest : public testing::Test {
 protected:
  static void SetUpTestSuite() {
    splitter_ = DeepSeekSplitter::Create().release();
    // The same expressions, but not the same text: they run as such.
    std::vector<std::string> patterns = DeepSeekSplitter::Patterns();
    for (std::string& pattern : patterns) {
      pattern = "(?:)" + pattern;
    }
    expressions_ = PreTokenizer::Create(patterns).value().release();
  }
  static void TearDownTestSuite() {
    delete splitter_;
    delete expressions_;
  }

  static std::vector<std::string> Pieces(std::string_view text) {
    std::vector<std::string_view> pieces;
    splitter_->Split(text, &pieces);
    return {pieces.begin(), pieces.end()};
  }
  static std::vector<std::string> Expected(std::string_view text) {
    std::vector<std::string_view> pieces;
    expressions_->Split(text, &pieces);
    return {pieces.begin(), pieces.end()};
  }

  static const DeepSeekSplitter* splitter_;
  static const PreTokenizer* expressions_;
};
const DeepSeekSplitter* DeepSeekSplitterTest::splitter_ = nullptr;
const PreTokenizer* DeepSeekSplitterTest::expressions_ = nullptr;

TEST_F(DeepSeekSplitterTest, CutsAsTheExpressionsDo) {
  EXPECT_THAT(Pieces("Hello, world's 12345 end"),
              ElementsAre("Hello", ",", " world", "'s", " ", "123", "45", " end"));
  EXPECT_THAT(Pieces("a  b\n\n  c \r\n"),
              ElementsAre("a", " ", " b", "\n\n", " ", " c", " \r\n"));
  EXPECT_THAT(Pieces("  1"), ElementsAre("  ", "1"));
  EXPECT_THAT(Pieces(" 中文です。x"), ElementsAre(" ", "中文です", "。", "x"));
  EXPECT_THAT(Pieces(""), ElementsAre());
}

// Every character of the alphabet has a class, or a part in an alternative, of its own.
TEST_F(DeepSeekSplitterTest, CutsRandomTextsAsTheExpressionsDo) {
  const std::vector<std::string> alphabet = {
      "a",    "Z",      "é",      "\u0301", "7",    "٥",  "!",      "(",      "$",  "«",
      "🙂", " ",      " ",      "\t",     "\n",   "\r", "\u00A0", "\u3000", "中", "の",
      "・",   "\u3099", "\u3040", "\u200B", "\x01", "龦", "、",     "\u0085"};
  std::mt19937 random(7);
  for (int round = 0; round < 200000; ++round) {
    std::string text;
    const size_t length = 1 + random() % 12;
    for (size_t i = 0; i < length; ++i) {
      text += alphabet[random() % alphabet.size()];
    }
    ASSERT_EQ(Pieces(text), Expected(text)) << testing::PrintToString(text);
  }
}

// And every character that there is, between and beside others.
TEST_F(DeepSeekSplitterTest, CutsEveryCharacterAsTheExpressionsDo) {
  std::string text;
  for (uint32_t code_point = 1; code_point < 0x30000; code_point += 1) {
    if (code_point >= 0xD800 && code_point <= 0xDFFF) {
      continue;
    }
    AppendUtf8(code_point, &text);
    text += code_point % 3 == 0 ? " " : (code_point % 3 == 1 ? "a" : "");
  }
  EXPECT_EQ(Pieces(text), Expected(text));
}

TEST_F(DeepSeekSplitterTest, LongRunsTakeLinearTime) {
  for (const char* unit : {" ", "a", "1", "\n", " \t", "中", "!"}) {
    std::string text;
    for (int i = 0; i < 100000; ++i) {
      text += unit;
    }
    size_t total = 0;
    for (const std::string& piece : Pieces(text)) {
      total += piece.size();
    }
    EXPECT_EQ(total, text.size());
  }
}

}  // namespace
}  // namespace tessera::model
