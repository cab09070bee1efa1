#include "model/tokenizer/byte_alphabet.h"

#include "gtest/gtest.h"

namespace tessera::model {
namespace {

TEST(ByteAlphabet, EveryByteHasASpellingThatReadsBack) {
  for (int byte = 0; byte < 256; ++byte) {
    const std::string bytes(1, static_cast<char>(byte));
    EXPECT_EQ(BytesOfSpelling(SpellBytes(bytes)), bytes);
  }
}

TEST(ByteAlphabet, SpellsAsInTokenizerFiles) {
  EXPECT_EQ(SpellBytes(" a\n"), "ĠaĊ");
  EXPECT_EQ(BytesOfSpelling("èģļå±ħ"), "聚居");
}

TEST(ByteAlphabet, OtherCharactersHaveNoBytes) {
  EXPECT_EQ(BytesOfSpelling("<｜User｜>"), std::nullopt);
  EXPECT_EQ(BytesOfSpelling("a b"), std::nullopt);
  EXPECT_EQ(BytesOfSpelling("\xC4"), std::nullopt);
}

}  // namespace
}  // namespace tessera::model
