#include "model/tokenizer/character_classes.h"

#include <memory>
#include <string_view>

#include "gtest/gtest.h"

namespace tessera::model {
namespace {

TEST(CharacterClasses, KnowEveryKindOfCharacter) {
  const auto classes = CharacterClasses::Create();
  ASSERT_NE(classes, nullptr);
  const struct {
    std::string_view text;
    int expected;
  } cases[] = {
      {"A", kWordCharacter | kAsciiLetterFlag},
      {"z", kWordCharacter | kAsciiLetterFlag},
      {"é", kWordCharacter},
      {"\u0301", kWordCharacter},  // a combining accent
      {"𝒳", kWordCharacter},
      {"5", kNumberCharacter},
      {"٥", kNumberCharacter},
      {"½", kNumberCharacter},
      {"[", kPunctuation | kAsciiPunctuationFlag},
      {"$", kPunctuation | kAsciiPunctuationFlag},
      {"«", kPunctuation},
      {"🙂", kPunctuation},
      {"\n", kNewline},
      {"\r", kNewline},
      {" ", kWhiteSpace},
      {"\v", kWhiteSpace},
      {"\u0085", kWhiteSpace},
      {"\u3000", kWhiteSpace},
      {"\u180E", kOtherCharacter},  // no White_Space
      {"\x01", kOtherCharacter},
      {"\u200B", kOtherCharacter},
      {"\U0010FFFF", kOtherCharacter},
      {"中", kWordCharacter | kCjkFlag},
      {"龥", kWordCharacter | kCjkFlag},
      {"龦", kWordCharacter},
      {"・", kPunctuation | kCjkFlag},
      {"\u3040", kOtherCharacter | kCjkFlag},  // unassigned
      {"〇", kNumberCharacter},
  };
  for (const auto& c : cases) {
    size_t num_bytes = 0;
    EXPECT_EQ(classes->At(c.text, 0, &num_bytes), c.expected) << c.text;
    EXPECT_EQ(num_bytes, c.text.size());
  }
  EXPECT_EQ(classes->OfAscii('~'), kPunctuation | kAsciiPunctuationFlag);
}

}  // namespace
}  // namespace tessera::model
