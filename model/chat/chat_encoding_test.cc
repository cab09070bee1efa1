#include "model/chat/chat_encoding.h"

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace tessera::model {
namespace {

ModelConfig ConfigOf(std::string family) {
  ModelConfig config;
  config.family = std::move(family);
  return config;
}

class NoTokens final : public Tokenizer {
 public:
  std::vector<int32_t> Encode(std::string_view, AddedTokens) const override { return {}; }
  absl::StatusOr<std::string> Decode(std::span<const int32_t>, bool) const override {
    return std::string();
  }
  std::string_view TokenBytes(int32_t) const override { return {}; }
  std::optional<int32_t> TokenId(std::string_view) const override { return std::nullopt; }
  bool IsSpecial(int32_t) const override { return false; }
  int32_t size() const override { return 0; }
};

TEST(ChatEncoding, ATokenizerWithoutTheControlTokensIsRefused) {
  const NoTokens tokenizer;
  const auto encoding = ChatEncoding::Create(ConfigOf("v4_mla"), &tokenizer);
  ASSERT_EQ(encoding.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(encoding.status().message()),
              testing::HasSubstr("<｜begin▁of▁sentence｜>"));
}

TEST(ChatEncoding, AFamilyWithoutAnEncodingIsNamed) {
  const NoTokens tokenizer;
  const auto encoding = ChatEncoding::Create(ConfigOf("other"), &tokenizer);
  EXPECT_EQ(encoding.status().code(), absl::StatusCode::kUnimplemented);
}

}  // namespace
}  // namespace tessera::model
