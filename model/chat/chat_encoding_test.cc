#include "model/chat/chat_encoding.h"

#include <algorithm>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace tessera::model {
namespace {

ModelConfig ConfigOf(std::string family) {
  ModelConfig config;
  config.family = std::move(family);
  return config;
}

// Knows control tokens alone; text has no ids.
class TokensOnly final : public Tokenizer {
 public:
  TokensOnly() = default;
  // All but those of `missing`.
  explicit TokensOnly(std::vector<std::string_view> missing)
      : has_tokens_(true), missing_(std::move(missing)) {}

  std::vector<int32_t> Encode(std::string_view, AddedTokens) const override { return {}; }
  absl::StatusOr<std::string> Decode(std::span<const int32_t>, bool) const override {
    return std::string();
  }
  std::string_view TokenBytes(int32_t) const override { return {}; }
  std::optional<int32_t> TokenId(std::string_view text) const override {
    const bool is_missing = std::ranges::find(missing_, text) != missing_.end();
    return has_tokens_ && !is_missing ? std::optional<int32_t>(1) : std::nullopt;
  }
  bool IsSpecial(int32_t) const override { return false; }
  int32_t size() const override { return 0; }

 private:
  bool has_tokens_ = false;
  std::vector<std::string_view> missing_;
};

// How the encoding of a checkpoint opens an answer that thinks as much as it can.
std::string Opening(const std::string& family, DraftKind draft,
                    std::vector<std::string_view> missing = {}) {
  ModelConfig config = ConfigOf(family);
  config.draft = draft;
  const TokensOnly tokenizer(std::move(missing));
  const auto encoding = ChatEncoding::Create(config, &tokenizer);
  EXPECT_TRUE(encoding.ok()) << encoding.status();
  const auto chat =
      (*encoding)->Encode({{.role = "user", .content = "Q"}},
                          {.thinking = true, .effort = ReasoningEffort::kMax});
  EXPECT_TRUE(chat.ok()) << chat.status();
  return chat->text;
}

TEST(ChatEncoding, EveryFamilyAndGenerationHasItsOwn) {
  const std::string plain = "<｜begin▁of▁sentence｜><｜User｜>Q<｜Assistant｜>";
  const auto none = DraftKind::kNone;
  EXPECT_EQ(Opening("v3", none, {"<think>", "</think>", "<｜search▁begin｜>"}), plain);
  EXPECT_EQ(Opening("v3", none, {"<｜search▁begin｜>"}), plain + "<think>\n");
  EXPECT_EQ(Opening("v3", none), plain + "<think>");
  EXPECT_EQ(Opening("v3.2", none), plain + "<think>");
  const auto names_effort = [](const char* words) {
    return testing::HasSubstr(std::string("sentence｜>") + words);
  };
  EXPECT_THAT(Opening("v4_mla", DraftKind::kMtpStreams),
              names_effort("Reasoning Effort: Absolute maximum"));
  EXPECT_THAT(Opening("v4", DraftKind::kMtpStreamsSplit),
              names_effort("Reasoning Effort: Absolute maximum"));
  EXPECT_THAT(Opening("v4", DraftKind::kDspark),
              names_effort("Reasoning Effort: Beyond maximum"));
  EXPECT_THAT(Opening("v4.1", DraftKind::kDspark),
              names_effort("<｜System｜>Reasoning Effort: 100"));
}

TEST(ChatEncoding, TraitsAreThoseOfTheGeneration) {
  const TokensOnly tokenizer(std::vector<std::string_view>{});
  const auto v41 = ChatEncoding::Create(ConfigOf("v4.1"), &tokenizer);
  ASSERT_TRUE(v41.ok()) << v41.status();
  EXPECT_TRUE((*v41)->traits().has_effort_numbers);
  EXPECT_TRUE((*v41)->traits().has_tool_namespaces);
  const auto v4 = ChatEncoding::Create(ConfigOf("v4"), &tokenizer);
  ASSERT_TRUE(v4.ok()) << v4.status();
  EXPECT_FALSE((*v4)->traits().has_effort_numbers);
  EXPECT_FALSE((*v4)->traits().has_tool_namespaces);
}

TEST(ChatEncoding, ATokenizerWithoutTheControlTokensIsRefused) {
  const TokensOnly tokenizer;
  const auto encoding = ChatEncoding::Create(ConfigOf("v4_mla"), &tokenizer);
  ASSERT_EQ(encoding.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(encoding.status().message()),
              testing::HasSubstr("<｜begin▁of▁sentence｜>"));
}

TEST(ChatEncoding, AFamilyWithoutAnEncodingIsNamed) {
  const TokensOnly tokenizer;
  const auto encoding = ChatEncoding::Create(ConfigOf("other"), &tokenizer);
  EXPECT_EQ(encoding.status().code(), absl::StatusCode::kUnimplemented);
}

}  // namespace
}  // namespace tessera::model
