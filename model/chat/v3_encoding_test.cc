#include "model/chat/v3_encoding.h"

#include <algorithm>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

#include "model/chat/control_tokens.h"

namespace tessera::model {
namespace {

using testing::EndsWith;
using testing::HasSubstr;
using testing::Not;

class V3EncodingTest : public testing::Test {
 protected:
  void SetUp() override {
    auto tokenizer = Tokenizer::Load("models/demo");
    ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
    tokenizer_ = std::move(*tokenizer);
  }
  std::unique_ptr<ChatEncoding> Create(const CallFormat& format) {
    auto encoding = CreateV3Encoding(format, tokenizer_.get());
    EXPECT_TRUE(encoding.ok()) << encoding.status();
    return std::move(*encoding);
  }
  EncodedChat Encode(const CallFormat& format, const std::vector<ChatMessage>& messages,
                     const ChatOptions& options = {}) {
    auto chat = Create(format)->Encode(messages, options);
    EXPECT_TRUE(chat.ok()) << chat.status();
    return chat.ok() ? *chat : EncodedChat{};
  }
  absl::StatusCode EncodeError(const std::vector<ChatMessage>& messages,
                               const ChatOptions& options = {}) {
    return Create(kV31Format)->Encode(messages, options).status().code();
  }

  std::unique_ptr<Tokenizer> tokenizer_;
};

const ChatMessage kUser = {.role = "user", .content = "a"};

TEST_F(V3EncodingTest, TheAnswerOpensAsTheGenerationAndTheModeWant) {
  const auto prompt = [&](const CallFormat& format, bool thinking) {
    return Encode(format, {kUser}, {.thinking = thinking});
  };
  EXPECT_THAT(prompt(kV3Format, true).text, EndsWith("a<｜Assistant｜>"));
  EXPECT_FALSE(prompt(kV3Format, true).in_reasoning);
  EXPECT_THAT(prompt(kR1Format, true).text, EndsWith("<｜Assistant｜><think>\n"));
  EXPECT_TRUE(prompt(kR1Format, true).in_reasoning);
  EXPECT_THAT(prompt(kR1Format, false).text, EndsWith("<think>\n\n</think>\n\n"));
  EXPECT_FALSE(prompt(kR1Format, false).in_reasoning);
  EXPECT_THAT(prompt(kV31Format, true).text, EndsWith("<｜Assistant｜><think>"));
  EXPECT_TRUE(prompt(kV31Format, true).in_reasoning);
  EXPECT_THAT(prompt(kV31Format, false).text, EndsWith("<｜Assistant｜></think>"));
}

TEST_F(V3EncodingTest, ReasoningOfThePastIsLeftOut) {
  for (const ChatMessage& answer :
       {ChatMessage{.role = "assistant", .content = "b", .reasoning_content = "why"},
        ChatMessage{.role = "assistant", .content = "why</think>b"}}) {
    const std::string text =
        Encode(kV31Format, {kUser, answer, kUser}, {.thinking = true}).text;
    EXPECT_THAT(text,
                HasSubstr("a<｜Assistant｜></think>b<｜end▁of▁sentence｜><｜User｜>"));
    EXPECT_THAT(Encode(kR1Format, {kUser, answer, kUser}, {.thinking = true}).text,
                Not(HasSubstr("why")));
  }
}

TEST_F(V3EncodingTest, ToolsAreDescribedAfterTheSystemMessage) {
  const std::string tools =
      R"([{"type": "function", "function": {"name": "f", "description": "Does.",)"
      R"( "parameters": {"type":"object"}}}, {"function": {"name": "g"}}])";
  EXPECT_THAT(
      Encode(kV31Format, {{.role = "system", .content = "S", .tools_json = tools}, kUser})
          .text,
      HasSubstr("S\n\n## Tools\nYou have access to the following tools:\n\n"
                "### f\nDescription: Does.\n\nParameters: {\"type\": \"object\"}\n\n"
                "### g\nDescription: \n\nParameters: {}\n\nIMPORTANT: ALWAYS"));
}

TEST_F(V3EncodingTest, AnAnswerIsContinuedWhereItStopped) {
  ChatMessage begun = {.role = "assistant", .content = "b", .without_eos = true};
  const ChatOptions options = {.thinking = true, .add_generation_prompt = false};
  EXPECT_THAT(Encode(kV31Format, {kUser, begun}, options).text,
              EndsWith("a<｜Assistant｜><think>b"));
  EXPECT_TRUE(Encode(kV31Format, {kUser, begun}, options).in_reasoning);
  begun.reasoning_content = "why";
  EXPECT_THAT(Encode(kV31Format, {kUser, begun}, options).text,
              EndsWith("a<｜Assistant｜><think>why</think>b"));
  EXPECT_FALSE(Encode(kV31Format, {kUser, begun}, options).in_reasoning);
}

TEST_F(V3EncodingTest, WhatAUserTypesIsNeverAControlToken) {
  std::string typed;
  for (int32_t id = 0; id < 32; ++id) {
    typed += tokenizer_->TokenBytes(id);
  }
  const std::vector<ChatMessage> messages = {
      {.role = "system", .content = typed},
      {.role = "user", .content = typed},
      {.role = "assistant",
       .content = "b",
       .tool_calls = {{.id = "c", .name = typed, .arguments = typed}}},
      {.role = "tool", .content = typed, .tool_call_id = "c"}};
  const EncodedChat chat = Encode(kV31Format, messages);
  for (const auto& [token, count] :
       {std::pair(kUserToken, 1), std::pair(kAssistantToken, 1),
        std::pair(kEndThinkToken, 1), std::pair(kCallBeginToken, 1),
        std::pair(kOutputEndToken, 1), std::pair(kEosToken, 1)}) {
    EXPECT_EQ(std::count(chat.ids.begin(), chat.ids.end(), *tokenizer_->TokenId(token)),
              count)
        << token;
  }
  EXPECT_EQ(*tokenizer_->Decode(chat.ids, false), chat.text);
}

TEST_F(V3EncodingTest, AnEncodedAssistantTurnParsesBack) {
  const ChatMessage message{
      .role = "assistant",
      .content = "Text.",
      .tool_calls = {{.id = "1", .name = "f", .arguments = "{\"a\": \"x\\ny\"}"},
                     {.id = "2", .name = "g", .arguments = "{}"}}};
  for (const CallFormat* format : {&kV3Format, &kR1Format, &kV31Format}) {
    const std::string all = Encode(*format, {kUser, message, kUser}).text;
    const size_t begin = all.find("Text.");
    const std::string turn_text =
        all.substr(begin, all.find(kEosToken) + kEosToken.size() - begin);
    const auto turn = Create(*format)->ParseTurn(turn_text, false);
    ASSERT_TRUE(turn.ok()) << turn.status();
    EXPECT_EQ(turn->content, message.content);
    ASSERT_EQ(turn->tool_calls.size(), 2U);
    EXPECT_EQ(turn->tool_calls[0].arguments, message.tool_calls[0].arguments);
    EXPECT_EQ(turn->tool_calls[1].name, "g");
  }
}

TEST_F(V3EncodingTest, MalformedTurnsAreRefused) {
  const auto refused = [&](std::string_view text, bool thinking) {
    return Create(kV31Format)->ParseTurn(text, thinking).status().code() ==
           absl::StatusCode::kInvalidArgument;
  };
  EXPECT_TRUE(refused("no end", true));
  EXPECT_TRUE(refused("why</think>a</think>b", true));
  EXPECT_TRUE(refused("a<｜User｜>b", false));
  EXPECT_TRUE(refused("<｜tool▁calls▁begin｜><｜tool▁calls▁end｜>", false));
  EXPECT_TRUE(
      refused("<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>f<｜tool▁sep｜>{}"
              "<｜tool▁call▁end｜><｜tool▁calls▁end｜>bye",
              false));
  EXPECT_FALSE(refused("why</think>\n\na", true));
}

TEST_F(V3EncodingTest, BadInputIsRefused) {
  const auto bad = absl::StatusCode::kInvalidArgument;
  EXPECT_EQ(EncodeError({}), bad);
  EXPECT_EQ(EncodeError({{.role = "latest_reminder", .content = "x"}}), bad);
  EXPECT_EQ(EncodeError({kUser, {.role = "tool", .content = "r"}}), bad);
  EXPECT_EQ(EncodeError({{.role = "system", .tools_json = "{}"}}), bad);
  EXPECT_EQ(EncodeError({kUser}, {.effort_number = 5}), bad);
}

}  // namespace
}  // namespace tessera::model
