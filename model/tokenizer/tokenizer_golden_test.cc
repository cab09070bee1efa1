// The tokenizer against recorded ids and texts: the demo model's tokenizer and DeepSeek
// V4's.
#include <fstream>
#include <memory>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "nlohmann/json.hpp"

#include "model/tokenizer/tokenizer.h"

namespace tessera::model {
namespace {

using Json = nlohmann::json;

Json ReadJson(const std::string& path) {
  std::ifstream file(path);
  return Json::parse(file);
}

std::string BytesOfHex(const std::string& hex) {
  std::string bytes;
  for (size_t i = 0; i + 1 < hex.size(); i += 2) {
    bytes.push_back(static_cast<char>(std::stoi(hex.substr(i, 2), nullptr, 16)));
  }
  return bytes;
}

std::string DecodeByPushes(const Tokenizer& tokenizer, const std::vector<int32_t>& ids) {
  IncrementalDecoder decoder(&tokenizer, /*skip_special=*/false);
  std::string text;
  for (const int32_t id : ids) {
    text += decoder.Push(id);
  }
  return text + decoder.Flush();
}

void ExpectDecodes(const Tokenizer& tokenizer, const std::vector<int32_t>& ids,
                   const std::string& expected) {
  const absl::StatusOr<std::string> decoded =
      tokenizer.Decode(ids, /*skip_special=*/false);
  ASSERT_TRUE(decoded.ok()) << decoded.status();
  EXPECT_EQ(*decoded, expected);
  EXPECT_EQ(DecodeByPushes(tokenizer, ids), expected);
}

TEST(DemoTokenizerGolden, EveryCaseAgrees) {
  auto tokenizer = Tokenizer::Load("models/demo");
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
  const Json cases = ReadJson("tests/data/demo/tokenizer_cases.json");
  ASSERT_GE(cases.size(), 333U);
  for (const Json& c : cases) {
    SCOPED_TRACE(c.dump());
    const std::string decoded = c.at("decoded");
    if (c.contains("decode_only")) {
      ExpectDecodes(**tokenizer, c.at("decode_only").get<std::vector<int32_t>>(),
                    decoded);
      continue;
    }
    const std::string text =
        c.contains("bytes") ? BytesOfHex(c.at("bytes")) : c.at("text").get<std::string>();
    const auto added =
        c.at("special").get<bool>() ? AddedTokens::kRecognize : AddedTokens::kPlain;
    const std::vector<int32_t> ids = (*tokenizer)->Encode(text, added);
    EXPECT_EQ(ids, c.at("ids").get<std::vector<int32_t>>());
    ExpectDecodes(**tokenizer, ids, decoded);
  }
}

class DeepSeekTokenizerGolden : public testing::Test {
 protected:
  static void SetUpTestSuite() {
    auto tokenizer = Tokenizer::Load("tests/data/tokenizer");
    ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
    tokenizer_ = std::move(*tokenizer);
    golden_ = ReadJson("tests/data/tokenizer/cases.json");
  }
  static void TearDownTestSuite() { tokenizer_.reset(); }

  static std::unique_ptr<Tokenizer> tokenizer_;
  static Json golden_;
};
std::unique_ptr<Tokenizer> DeepSeekTokenizerGolden::tokenizer_;
Json DeepSeekTokenizerGolden::golden_;

TEST_F(DeepSeekTokenizerGolden, EveryTextGivesTheRecordedIds) {
  ASSERT_GE(golden_.at("cases").size(), 440U);
  for (const Json& c : golden_.at("cases")) {
    SCOPED_TRACE(c.dump());
    const std::string text = c.at("text");
    const auto ids = c.at("ids").get<std::vector<int32_t>>();
    EXPECT_EQ(tokenizer_->Encode(text, AddedTokens::kRecognize), ids);
    const auto plain_ids =
        c.contains("plain_ids") ? c.at("plain_ids").get<std::vector<int32_t>>() : ids;
    EXPECT_EQ(tokenizer_->Encode(text, AddedTokens::kPlain), plain_ids);
    ExpectDecodes(*tokenizer_, ids, text);
    ExpectDecodes(*tokenizer_, plain_ids, text);
  }
}

TEST_F(DeepSeekTokenizerGolden, EveryIdSequenceGivesTheRecordedText) {
  ASSERT_GE(golden_.at("decode").size(), 94U);
  for (const Json& c : golden_.at("decode")) {
    SCOPED_TRACE(c.dump());
    ExpectDecodes(*tokenizer_, c.at("ids").get<std::vector<int32_t>>(), c.at("text"));
  }
}

TEST_F(DeepSeekTokenizerGolden, HasTheWholeVocabulary) {
  EXPECT_EQ(tokenizer_->size(), 129280);
  EXPECT_EQ(tokenizer_->TokenId("<｜begin▁of▁sentence｜>"), 0);
  EXPECT_EQ(tokenizer_->TokenId("</think>"), 128822);
  EXPECT_EQ(tokenizer_->TokenBytes(128825), "｜DSML｜");
}

}  // namespace
}  // namespace tessera::model
