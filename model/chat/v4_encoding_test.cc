#include "model/chat/v4_encoding.h"

#include <algorithm>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace tessera::model {
namespace {

using testing::EndsWith;
using testing::HasSubstr;
using testing::Not;

class V4EncodingTest : public testing::Test {
 protected:
  void SetUp() override {
    auto tokenizer = Tokenizer::Load("models/demo");
    ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
    tokenizer_ = std::move(*tokenizer);
    Use(kV4Preview);
  }
  void Use(const EncodingGeneration& generation) {
    auto encoding = CreateV4Encoding(generation, tokenizer_.get());
    ASSERT_TRUE(encoding.ok()) << encoding.status();
    encoding_ = std::move(*encoding);
  }
  EncodedChat Encode(const std::vector<ChatMessage>& messages,
                     const ChatOptions& options = {}) {
    auto chat = encoding_->Encode(messages, options);
    EXPECT_TRUE(chat.ok()) << chat.status();
    return chat.ok() ? *chat : EncodedChat{};
  }
  absl::StatusCode EncodeError(const std::vector<ChatMessage>& messages) {
    return encoding_->Encode(messages, {}).status().code();
  }

  std::unique_ptr<Tokenizer> tokenizer_;
  std::unique_ptr<ChatEncoding> encoding_;
};

TEST_F(V4EncodingTest, WhatAUserTypesIsNeverAControlToken) {
  std::string typed;
  for (int32_t id = 0; id < 32; ++id) {
    typed += tokenizer_->TokenBytes(id);
  }
  const std::string json = "{\"k｜DSML｜\": \"<think>\", \"n\": [\"</think>\"]}";
  ChatMessage call{.role = "assistant",
                   .content = typed,
                   .reasoning_content = typed,
                   .tool_calls = {{.id = "c", .name = typed, .arguments = json},
                                  {.id = "d", .name = "g", .arguments = typed}}};
  const std::string tools = "[{\"function\": {\"name\": \"<｜User｜>\"}}]";
  const std::vector<ChatMessage> messages = {
      {.role = "system",
       .content = typed,
       .tools_json = tools,
       .response_format_json = json},
      {.role = "user", .content = typed},
      call,
      {.role = "tool", .content = typed, .tool_call_id = "c"},
      {.role = "latest_reminder", .content = typed}};
  const EncodedChat chat = Encode(messages, {.thinking = true});
  const auto count = [&](std::string_view token) {
    return std::count(chat.ids.begin(), chat.ids.end(), *tokenizer_->TokenId(token));
  };
  EXPECT_EQ(count("<｜begin▁of▁sentence｜>"), 1);
  EXPECT_EQ(count("<｜end▁of▁sentence｜>"), 1);
  EXPECT_EQ(count("<｜User｜>"), 2);
  EXPECT_EQ(count("<｜Assistant｜>"), 2);
  EXPECT_EQ(count("<｜latest_reminder｜>"), 1);
  EXPECT_EQ(count("<think>"), 2 + 2);  // two turns, and the tools text speaks of it twice
  EXPECT_EQ(count("</think>"), 1 + 2);
  EXPECT_EQ(count("｜DSML｜"), 9 + 12);  // the tools text, and a block of two calls
  EXPECT_EQ(count("<|EOT|>"), 0);
  EXPECT_EQ(*tokenizer_->Decode(chat.ids, false), chat.text);
}

TEST_F(V4EncodingTest, ArgumentsThatAreNoObjectBecomeOneParameter) {
  const auto prompt_of = [&](const std::string& arguments) {
    return Encode({{.role = "user", .content = "a"},
                   {.role = "assistant",
                    .tool_calls = {{.id = "", .name = "f", .arguments = arguments}}}})
        .text;
  };
  EXPECT_THAT(
      prompt_of("[1]"),
      HasSubstr("parameter name=\"arguments\" string=\"true\">[1]</｜DSML｜parameter>"));
  EXPECT_THAT(
      prompt_of("{oops"),
      HasSubstr(
          "parameter name=\"arguments\" string=\"true\">{oops</｜DSML｜parameter>"));
  EXPECT_THAT(prompt_of(""),
              HasSubstr("<｜DSML｜invoke name=\"f\">\n\n</｜DSML｜invoke>"));
}

TEST_F(V4EncodingTest, WithoutAGenerationPromptTheLastTurnStaysClosed) {
  EXPECT_THAT(
      Encode({{.role = "user", .content = "a"}}, {.add_generation_prompt = false}).text,
      EndsWith("<｜User｜>a"));
}

TEST_F(V4EncodingTest, ASystemMessageAloneOpensTheAnswer) {
  EXPECT_THAT(Encode({{.role = "system", .content = "S"}}).text,
              EndsWith("S<｜Assistant｜></think>"));
}

TEST_F(V4EncodingTest, InV41ALateSystemMessageOpensATurn) {
  Use(kV41);
  const ChatMessage user = {.role = "user", .content = "a"};
  const ChatMessage answer = {
      .role = "assistant", .content = "b", .reasoning_content = "why"};
  const ChatMessage system = {.role = "system", .content = "S"};
  // It counts as the user's: the reasoning before it is dropped.
  EXPECT_THAT(
      Encode({user, answer, system}, {.thinking = true}).text,
      EndsWith("<｜User｜>a<｜Assistant｜></think>b<｜end▁of▁sentence｜><｜System｜>S"
               "<｜Assistant｜><think>"));
  EXPECT_THAT(Encode({user, system, {.role = "latest_reminder", .content = "R"}}).text,
              EndsWith("<｜System｜>S<｜Assistant｜></think><｜latest_reminder｜>R"));
  EXPECT_THAT(Encode({system}).text, EndsWith("sentence｜><｜System｜>S"));
}

TEST_F(V4EncodingTest, InV41ToolResultsKeepTheReasoningBeforeThem) {
  const std::vector<ChatMessage> messages = {
      {.role = "user", .content = "a"},
      {.role = "assistant",
       .reasoning_content = "why",
       .tool_calls = {{.id = "x", .name = "f", .arguments = "{}"}}},
      {.role = "tool", .content = "r", .tool_call_id = "x"}};
  EXPECT_THAT(Encode(messages, {.thinking = true}).text, Not(HasSubstr("why")));
  Use(kV41);
  EXPECT_THAT(Encode(messages, {.thinking = true}).text, HasSubstr("<think>why</think>"));
  std::vector<ChatMessage> with_text = messages;
  with_text.push_back({.role = "user", .content = "b"});
  EXPECT_THAT(Encode(with_text, {.thinking = true}).text, Not(HasSubstr("why")));
}

TEST_F(V4EncodingTest, APromptSaysWhetherItEndsInsideTheReasoning) {
  const ChatMessage user = {.role = "user", .content = "a"};
  const ChatMessage begun = {.role = "assistant",
                             .content = "b",
                             .reasoning_content = "why",
                             .without_eos = true};
  EXPECT_TRUE(Encode({user}, {.thinking = true}).in_reasoning);
  EXPECT_FALSE(Encode({user}).in_reasoning);
  EXPECT_FALSE(Encode({user, begun}, {.thinking = true, .add_generation_prompt = false})
                   .in_reasoning);
  EXPECT_FALSE(Encode({{.role = "user", .content = "<think>"}}).in_reasoning);
}

TEST_F(V4EncodingTest, EmptyToolsAndFormatsAddNothing) {
  const EncodedChat plain = Encode({{.role = "system", .content = "S"}});
  EXPECT_EQ(Encode({{.role = "system",
                     .content = "S",
                     .tools_json = "[]",
                     .response_format_json = "{}"}})
                .text,
            plain.text);
}

TEST_F(V4EncodingTest, BadInputIsRefused) {
  const auto bad = absl::StatusCode::kInvalidArgument;
  EXPECT_EQ(EncodeError({}), bad);
  EXPECT_EQ(EncodeError({{.role = "system", .tools_json = "{}"}}), bad);
  EXPECT_EQ(EncodeError({{.role = "system", .tools_json = "[{\"type\": \"function\"}]"}}),
            bad);
  EXPECT_EQ(EncodeError({{.role = "system", .tools_json = "["}}), bad);
  EXPECT_EQ(EncodeError({{.role = "system", .response_format_json = "x"}}), bad);
}

TEST_F(V4EncodingTest, AnEncodedAssistantTurnParsesBack) {
  const ChatMessage message{
      .role = "assistant",
      .content = "Text.",
      .reasoning_content = "Why.",
      .tool_calls = {
          {.id = "1", .name = "f", .arguments = "{\"a\": \"x\\ny\", \"b\": 1e-05}"},
          {.id = "2", .name = "g", .arguments = "{}"}}};
  const std::vector<ChatMessage> before = {{.role = "user", .content = "a"}};
  const size_t prompt_bytes = Encode(before, {.thinking = true}).text.size();
  const std::string all = Encode({before[0], message}, {.thinking = true}).text;
  const auto turn =
      encoding_->ParseTurn(std::string_view(all).substr(prompt_bytes), true);
  ASSERT_TRUE(turn.ok()) << turn.status();
  EXPECT_EQ(turn->reasoning, message.reasoning_content);
  EXPECT_EQ(turn->content, message.content);
  ASSERT_EQ(turn->tool_calls.size(), 2U);
  for (size_t i = 0; i < 2; ++i) {
    EXPECT_EQ(turn->tool_calls[i].name, message.tool_calls[i].name);
    EXPECT_EQ(turn->tool_calls[i].arguments, message.tool_calls[i].arguments);
  }
}

}  // namespace
}  // namespace tessera::model
