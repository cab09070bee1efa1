#include "model/tokenizer/utf8.h"

#include "gtest/gtest.h"

namespace tessera::model {
namespace {

constexpr std::string_view kR = kReplacementCharacter;

std::string Times(int count) {
  std::string text;
  for (int i = 0; i < count; ++i) {
    text += kR;
  }
  return text;
}

TEST(Utf8, WellFormedTextIsUnchanged) {
  const std::string text = "plain, é, 中文, 😀, \xF4\x8F\xBF\xBF";
  EXPECT_EQ(WellFormedPrefix(text), text.size());
  EXPECT_EQ(ReplaceIllFormed(text), text);
}

TEST(Utf8, EachMaximalSubpartBecomesOneReplacement) {
  EXPECT_EQ(ReplaceIllFormed("\xC0\xAF"), Times(2));          // overlong
  EXPECT_EQ(ReplaceIllFormed("\xED\xA0\x80"), Times(3));      // surrogate
  EXPECT_EQ(ReplaceIllFormed("\xF4\x90\x80\x80"), Times(4));  // above U+10FFFF
  EXPECT_EQ(ReplaceIllFormed("\xF0\x9F\x98"
                             "x"),
            Times(1) + "x");                              // cut short by another
  EXPECT_EQ(ReplaceIllFormed("\xF0\x9F\x98"), Times(1));  // cut short by the end
  EXPECT_EQ(ReplaceIllFormed("\xF0\x9F\xF0\x9F"), Times(2));
  EXPECT_EQ(ReplaceIllFormed("a\xFF"
                             "b"),
            "a" + Times(1) + "b");
}

TEST(Utf8, PrefixEndsBeforeTheFirstIllFormedByte) {
  EXPECT_EQ(WellFormedPrefix("0123456789é\xC3"), 12U);
  EXPECT_EQ(WellFormedPrefix("\x80"), 0U);
}

TEST(Utf8, DrainKeepsOnlyAnUnfinishedCharacter) {
  std::string pending = "ab\xFF\xE4\xB8";
  std::string text;
  DrainDecided(&pending, &text);
  EXPECT_EQ(text, "ab" + Times(1));
  EXPECT_EQ(pending, "\xE4\xB8");
  pending += "\xAD!";
  DrainDecided(&pending, &text);
  EXPECT_EQ(text, "ab" + Times(1) + "中!");
  EXPECT_EQ(pending, "");
}

TEST(Utf8, AppendedCharactersAreWellFormed) {
  std::string text;
  for (const uint32_t code_point : {0x41U, 0xE9U, 0x4E2DU, 0x1F600U}) {
    AppendUtf8(code_point, &text);
  }
  EXPECT_EQ(text, "Aé中😀");
}

}  // namespace
}  // namespace tessera::model
