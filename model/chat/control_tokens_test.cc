#include "model/chat/control_tokens.h"

#include <algorithm>
#include <array>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace tessera::model {
namespace {

TEST(ControlTokens, TasksAreNamedByTheirTokens) {
  EXPECT_EQ(TaskToken("read_url"), "<｜read_url｜>");
  EXPECT_EQ(TaskToken("<｜title｜>"), "");
  EXPECT_EQ(std::ranges::count(TaskTokens(), TaskToken("action")), 1);
}

TEST(ControlTokens, TheFirstThatATokenizerLacksIsNamed) {
  const auto tokenizer = Tokenizer::Load("models/demo");
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
  const std::array<std::string_view, 2> known = {kUserToken, kThinkToken};
  const auto tokens = FindControlTokens(**tokenizer, known);
  ASSERT_TRUE(tokens.ok()) << tokens.status();
  ASSERT_EQ(tokens->size(), 2U);
  EXPECT_EQ((*tokens)[1].content, kThinkToken);
  EXPECT_EQ((*tokens)[1].id, (*tokenizer)->TokenId(kThinkToken));
  const std::array<std::string_view, 2> unknown = {kUserToken, kSearchBeginToken};
  const absl::Status status = FindControlTokens(**tokenizer, unknown).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(status.message()), testing::HasSubstr(kSearchBeginToken));
}

TEST(ControlTokens, APartThatSpellsOneIsRefused) {
  const std::array<std::string_view, 2> tokens = {kEosToken, kEndThinkToken};
  EXPECT_TRUE(RefuseControlTokens("content", "a <think> b", tokens).ok());
  const absl::Status status = RefuseControlTokens("content", "a</think>b", tokens);
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(status.message()), testing::HasSubstr("</think>"));
}

}  // namespace
}  // namespace tessera::model
