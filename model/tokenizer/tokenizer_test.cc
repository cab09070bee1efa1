#include "model/tokenizer/tokenizer.h"

#include <array>
#include <filesystem>
#include <fstream>
#include <random>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

#include "model/tokenizer/utf8.h"

namespace tessera::model {
namespace {

using testing::HasSubstr;

class TokenizerTest : public testing::Test {
 protected:
  void SetUp() override {
    auto tokenizer = Tokenizer::Load("models/demo");
    ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
    tokenizer_ = std::move(*tokenizer);
  }
  std::unique_ptr<Tokenizer> tokenizer_;
};

TEST_F(TokenizerTest, PlainTextNeverGivesAnAddedToken) {
  for (int32_t id = 0; id < 32; ++id) {
    const std::string text(tokenizer_->TokenBytes(id));
    EXPECT_EQ(tokenizer_->Encode(text, AddedTokens::kRecognize),
              std::vector<int32_t>{id});
    for (const int32_t plain :
         tokenizer_->Encode("x" + text + text, AddedTokens::kPlain)) {
      EXPECT_GE(plain, 32) << text;
    }
  }
}

TEST_F(TokenizerTest, SpecialTokensAreLeftOutOnRequest) {
  // tokenizer_config.json of the demo model marks BOS as special, and <think> as not
  // special.
  const std::vector<int32_t> ids =
      tokenizer_->Encode("<｜begin▁of▁sentence｜><think>a", AddedTokens::kRecognize);
  EXPECT_EQ(*tokenizer_->Decode(ids, false), "<｜begin▁of▁sentence｜><think>a");
  EXPECT_EQ(*tokenizer_->Decode(ids, true), "<think>a");
}

TEST_F(TokenizerTest, IdsOutOfRangeAreRefused) {
  for (const int32_t id : {-1, tokenizer_->size()}) {
    EXPECT_EQ(tokenizer_->Decode(std::vector<int32_t>{id}, false).status().code(),
              absl::StatusCode::kInvalidArgument);
    EXPECT_EQ(tokenizer_->TokenBytes(id), "");
    EXPECT_FALSE(tokenizer_->IsSpecial(id));
  }
}

TEST_F(TokenizerTest, ValidTextSurvivesEncodingAndDecoding) {
  const uint32_t seed = 424242;
  SCOPED_TRACE(seed);
  std::mt19937 random(seed);
  for (int round = 0; round < 200; ++round) {
    std::string text;
    for (size_t i = random() % 60; i > 0; --i) {
      const uint32_t range = std::array{0x80U, 0x800U, 0xD800U, 0x10FFFFU}[random() % 4];
      const uint32_t code_point = static_cast<uint32_t>(random() % range);
      AppendUtf8(code_point >= 0xD800 && code_point < 0xE000 ? ' ' : code_point, &text);
    }
    const std::vector<int32_t> ids = tokenizer_->Encode(text, AddedTokens::kPlain);
    ASSERT_EQ(*tokenizer_->Decode(ids, false), text);
  }
}

TEST_F(TokenizerTest, IncrementalDecodingEqualsDecodingForAnyIds) {
  const uint32_t seed = 77;
  SCOPED_TRACE(seed);
  std::mt19937 random(seed);
  for (int round = 0; round < 500; ++round) {
    IncrementalDecoder decoder(tokenizer_.get(), /*skip_special=*/true);
    std::vector<int32_t> ids;
    std::string text;
    for (int i = 0; i < 30; ++i) {
      // Mostly single bytes, which make broken characters likely.
      ids.push_back(static_cast<int32_t>(random() % (random() % 4 == 0 ? 4096 : 288)));
      const std::string pushed = decoder.Push(ids.back());
      ASSERT_EQ(WellFormedPrefix(pushed), pushed.size());
      text += pushed;
    }
    text += decoder.Flush();
    ASSERT_EQ(text, *tokenizer_->Decode(ids, /*skip_special=*/true));
  }
}

TEST_F(TokenizerTest, HalfACharacterIsHeldBackUntilItsRestCame) {
  const std::vector<int32_t> ids = tokenizer_->Encode("😀", AddedTokens::kPlain);
  ASSERT_GT(ids.size(), 1U);
  IncrementalDecoder decoder(tokenizer_.get(), false);
  for (size_t i = 0; i + 1 < ids.size(); ++i) {
    EXPECT_EQ(decoder.Push(ids[i]), "");
  }
  EXPECT_EQ(decoder.Push(ids.back()), "😀");
  EXPECT_EQ(decoder.Push(ids.front()), "");
  EXPECT_EQ(decoder.Flush(), kReplacementCharacter);
  EXPECT_EQ(decoder.Flush(), "");
}

TEST_F(TokenizerTest, LongRunsOfOneCharacterStayFast) {
  // White space, letters and signs by the megabyte: neither the regular expressions nor
  // the merges may be quadratic, or this ends at the timeout.
  for (const char* unit : {"a", " ", "\n", "-", "é", " \n", "1", "\x01", "\xFF"}) {
    std::string text;
    while (text.size() < (1 << 19)) {
      text += unit;
    }
    const std::vector<int32_t> ids = tokenizer_->Encode(text, AddedTokens::kRecognize);
    EXPECT_EQ(*tokenizer_->Decode(ids, false), ReplaceIllFormed(text));
  }
}

TEST(TokenizerLoad, AMissingFileIsNotFound) {
  EXPECT_EQ(Tokenizer::Load("tests/data").status().code(), absl::StatusCode::kNotFound);
}

TEST(TokenizerLoad, AnOversizedFileIsRefusedUnread) {
  const std::filesystem::path directory =
      std::filesystem::path(testing::TempDir()) / "oversized_tokenizer";
  std::filesystem::create_directories(directory);
  std::ofstream(directory / "tokenizer.json").close();
  std::filesystem::resize_file(directory / "tokenizer.json", (64 << 20) + 1);
  const auto tokenizer = Tokenizer::Load(directory.string());
  EXPECT_EQ(tokenizer.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(tokenizer.status().message()), HasSubstr("67108865 bytes"));
  std::filesystem::remove_all(directory);
}

TEST(TokenizerLoad, ErrorsNameTheDirectory) {
  const std::filesystem::path directory =
      std::filesystem::path(testing::TempDir()) / "other_tokenizer";
  std::filesystem::create_directories(directory);
  std::ofstream(directory / "tokenizer.json") << R"({"model": {"type": "Unigram"}})";
  const auto tokenizer = Tokenizer::Load(directory.string());
  EXPECT_EQ(tokenizer.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(tokenizer.status().message()), HasSubstr("other_tokenizer: "));
  EXPECT_THAT(std::string(tokenizer.status().message()), HasSubstr("Unigram"));
  std::filesystem::remove_all(directory);
}

}  // namespace
}  // namespace tessera::model
