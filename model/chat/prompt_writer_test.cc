#include "model/chat/prompt_writer.h"

#include <memory>

#include "gtest/gtest.h"

namespace tessera::model {
namespace {

class PromptWriterTest : public testing::Test {
 protected:
  void SetUp() override {
    auto tokenizer = Tokenizer::Load("models/demo");
    ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
    tokenizer_ = std::move(*tokenizer);
  }
  std::vector<int32_t> Plain(std::string_view text) const {
    return tokenizer_->Encode(text, AddedTokens::kPlain);
  }

  std::unique_ptr<Tokenizer> tokenizer_;
  AddedTokenTrie trie_{{{.id = 9, .content = "<think>"}}};
};

TEST_F(PromptWriterTest, OnlyTextOfTheEncodingHoldsControlTokens) {
  PromptWriter writer(tokenizer_.get(), &trie_);
  writer.Own("a<think>");
  writer.Untrusted("<think>");
  const EncodedChat chat = writer.Finish();
  EXPECT_EQ(chat.text, "a<think><think>");
  std::vector<int32_t> expected = Plain("a");
  expected.push_back(9);
  const std::vector<int32_t> typed = Plain("<think>");
  expected.insert(expected.end(), typed.begin(), typed.end());
  EXPECT_EQ(chat.ids, expected);
}

TEST_F(PromptWriterTest, TextBetweenControlTokensIsOneRun) {
  PromptWriter writer(tokenizer_.get(), &trie_);
  writer.Own("re");
  writer.Untrusted("tu");
  writer.Own("rn");
  EXPECT_EQ(writer.Finish().ids, Plain("return"));
}

TEST_F(PromptWriterTest, PiecesOfAControlTokenDoNotJoinToOne) {
  PromptWriter writer(tokenizer_.get(), &trie_);
  writer.Own("<");
  writer.Untrusted("think");
  writer.Own(">");
  EXPECT_EQ(writer.Finish().ids, Plain("<think>"));
}

TEST_F(PromptWriterTest, HalfACharacterDoesNotSwallowWhatFollows) {
  PromptWriter writer(tokenizer_.get(), &trie_);
  writer.Untrusted("\xE2\x82");
  writer.Untrusted("\xAC");
  EXPECT_EQ(writer.Finish().text, "\xEF\xBF\xBD\xEF\xBF\xBD");
}

}  // namespace
}  // namespace tessera::model
