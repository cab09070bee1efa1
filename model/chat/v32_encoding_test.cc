#include "model/chat/v32_encoding.h"

#include <algorithm>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

#include "model/chat/control_tokens.h"

namespace tessera::model {
namespace {

using testing::EndsWith;
using testing::HasSubstr;

class V32EncodingTest : public testing::Test {
 protected:
  void SetUp() override {
    auto tokenizer = Tokenizer::Load("models/demo");
    ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
    tokenizer_ = std::move(*tokenizer);
    auto encoding = CreateV32Encoding(kV32, tokenizer_.get());
    ASSERT_TRUE(encoding.ok()) << encoding.status();
    encoding_ = std::move(*encoding);
  }
  EncodedChat Encode(const std::vector<ChatMessage>& messages,
                     const ChatOptions& options = {.thinking = true}) {
    auto chat = encoding_->Encode(messages, options);
    EXPECT_TRUE(chat.ok()) << chat.status();
    return chat.ok() ? *chat : EncodedChat{};
  }
  absl::StatusCode EncodeError(const std::vector<ChatMessage>& messages,
                               const ChatOptions& options = {.thinking = true}) {
    return encoding_->Encode(messages, options).status().code();
  }

  std::unique_ptr<Tokenizer> tokenizer_;
  std::unique_ptr<ChatEncoding> encoding_;
};

const ChatMessage kUser = {.role = "user", .content = "a"};
const ChatMessage kTwoCalls = {
    .role = "assistant",
    .tool_calls = {{.id = "x", .name = "f", .arguments = "{}"},
                   {.id = "y", .name = "g", .arguments = "{}"}}};
const ChatMessage kResult = {.role = "tool", .content = "r", .tool_call_id = "x"};

TEST_F(V32EncodingTest, ToolsOfADeveloperMessageStandBeforeItsText) {
  const std::string text = Encode({{.role = "developer",
                                    .content = "Do it.",
                                    .tools_json = R"([{"function": {"name": "f"}}])",
                                    .response_format_json = R"({"type": "object"})"}})
                               .text;
  EXPECT_THAT(text, HasSubstr("<｜User｜>\n\n## Tools\n"));
  EXPECT_THAT(text,
              HasSubstr("<functions>\n{\"name\": \"f\"}\n</functions>\n\n\n## Res"));
  EXPECT_THAT(text, EndsWith("{\"type\": \"object\"}\n\n# The user's message is: Do it."
                             "<｜Assistant｜><think>"));
}

TEST_F(V32EncodingTest, AGroupOfResultsIsClosedThoughResultsAreMissing) {
  EXPECT_THAT(Encode({kUser, kTwoCalls, kResult}).text,
              EndsWith("\n\n<function_results>\n<result>r</result>\n</function_results>"
                       "\n\n<think>"));
}

TEST_F(V32EncodingTest, AnAnswerThatIsContinuedStaysOpen) {
  const ChatMessage begun = {.role = "assistant",
                             .content = "b",
                             .reasoning_content = "why",
                             .without_eos = true};
  const EncodedChat chat =
      Encode({kUser, begun}, {.thinking = true, .add_generation_prompt = false});
  EXPECT_THAT(chat.text, EndsWith("<think>why</think>b"));
  EXPECT_FALSE(chat.in_reasoning);
}

TEST_F(V32EncodingTest, WithoutAGenerationPromptTheLastTurnStaysClosed) {
  EXPECT_THAT(Encode({kUser}, {.add_generation_prompt = false}).text,
              EndsWith("<｜User｜>a"));
}

TEST_F(V32EncodingTest, WhatAUserTypesIsNeverAControlToken) {
  std::string typed;
  for (int32_t id = 0; id < 32; ++id) {
    typed += tokenizer_->TokenBytes(id);
  }
  const EncodedChat chat = Encode(
      {{.role = "system", .content = typed},
       {.role = "user", .content = typed},
       {.role = "assistant",
        .content = typed,
        .reasoning_content = typed,
        .tool_calls = {{.id = "x", .name = typed, .arguments = "{\"<think>\": 1}"}}},
       {.role = "tool", .content = typed}});
  const auto count = [&](std::string_view token) {
    return std::count(chat.ids.begin(), chat.ids.end(), *tokenizer_->TokenId(token));
  };
  EXPECT_EQ(count(kUserToken), 1);
  EXPECT_EQ(count(kAssistantToken), 1);
  EXPECT_EQ(count(kEosToken), 1);
  EXPECT_EQ(count(kThinkToken), 2);
  EXPECT_EQ(count(kEndThinkToken), 1);
  EXPECT_EQ(count(kDsmlToken), 6);
  EXPECT_EQ(*tokenizer_->Decode(chat.ids, false), chat.text);
}

TEST_F(V32EncodingTest, BadInputIsRefused) {
  const auto bad = absl::StatusCode::kInvalidArgument;
  EXPECT_EQ(EncodeError({}), bad);
  EXPECT_EQ(EncodeError({{.role = "latest_reminder", .content = "x"}}), bad);
  EXPECT_EQ(EncodeError({kUser, kResult}), bad);
  EXPECT_EQ(EncodeError({kUser, kTwoCalls, kResult, kResult, kResult}), bad);
  EXPECT_EQ(EncodeError({kUser, kTwoCalls, kUser, kResult}), bad);
  EXPECT_EQ(EncodeError({{.role = "system", .tools_json = "{}"}}), bad);
  EXPECT_EQ(EncodeError({kUser}, {.effort_number = 5}), bad);
}

TEST_F(V32EncodingTest, AThinkingTurnAfterTheUserNeedsReasoningOrCalls) {
  const ChatMessage bare = {.role = "assistant", .content = "b"};
  EXPECT_EQ(EncodeError({kUser, bare}), absl::StatusCode::kInvalidArgument);
  EXPECT_TRUE(encoding_->Encode({kUser, bare, kUser}, {.thinking = true}).ok());
  EXPECT_TRUE(encoding_->Encode({kUser, bare}, {.thinking = false}).ok());
}

}  // namespace
}  // namespace tessera::model
