// The chat encodings against recorded prompts of every generation, and parsed turns of
// those whose parsers are published.
#include <algorithm>
#include <fstream>
#include <memory>
#include <random>
#include <sstream>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "nlohmann/json.hpp"

#include "model/chat/control_tokens.h"
#include "model/chat/v32_encoding.h"
#include "model/chat/v3_encoding.h"
#include "model/chat/v4_encoding.h"

namespace tessera::model {
namespace {

using Json = nlohmann::ordered_json;

ReasoningEffort EffortOf(const Json& conversation) {
  const Json effort = conversation.value("reasoning_effort", Json());
  if (effort == "low") {
    return ReasoningEffort::kLow;
  }
  if (effort == "high") {
    return ReasoningEffort::kHigh;
  }
  return effort == "max" ? ReasoningEffort::kMax : ReasoningEffort::kNone;
}

ChatMessage MessageOf(const Json& json) {
  ChatMessage message{.role = json.at("role"),
                      .content = json.at("content"),
                      .reasoning_content = json.value("reasoning_content", ""),
                      .tool_call_id = json.value("tool_call_id", ""),
                      .task = json.value("task", ""),
                      .without_eos = json.value("wo_eos", false)};
  if (json.contains("response_format")) {
    message.response_format_json = json.at("response_format").dump();
  }
  for (const Json& call : json.value("tool_calls", Json::array())) {
    message.tool_calls.push_back({.id = call.at("id"),
                                  .name = call.at("function").at("name"),
                                  .arguments = call.at("function").at("arguments")});
  }
  return message;
}

std::vector<ChatMessage> MessagesOf(const Json& conversation) {
  std::vector<ChatMessage> messages;
  for (const Json& message : conversation.at("messages")) {
    messages.push_back(MessageOf(message));
  }
  // Tools belong to the first system message; one is put in front where there is none.
  if (conversation.contains("tools")) {
    auto system = std::find_if(messages.begin(), messages.end(),
                               [](const ChatMessage& m) { return m.role == "system"; });
    if (system == messages.end()) {
      system = messages.insert(messages.begin(), ChatMessage{.role = "system"});
    }
    system->tools_json = conversation.at("tools").dump();
  }
  return messages;
}

ChatOptions OptionsOf(const Json& conversation) {
  const Json effort = conversation.value("reasoning_effort", Json());
  return {.thinking = conversation.at("thinking"),
          .drop_thinking = conversation.value("drop_thinking", true),
          .effort = EffortOf(conversation),
          .effort_number = effort.is_number() ? effort.get<int32_t>() : 0};
}

struct GoldenFile {
  const char* name;
  size_t num_prompts;
  size_t num_contested;
  absl::StatusOr<std::unique_ptr<ChatEncoding>> (*create)(const Tokenizer* tokenizer);
};

// The tokenizer of V4, in which V4.1 gave the placeholder 799 a name.
std::unique_ptr<Tokenizer> LoadTokenizer() {
  const std::string placeholder = "<｜place▁holder▁no▁799｜>";
  std::ifstream file("tests/data/tokenizer/tokenizer.json");
  std::stringstream stream;
  stream << file.rdbuf();
  std::string text = stream.str();
  const size_t position = text.find(placeholder);
  EXPECT_NE(position, std::string::npos);
  text.replace(position, placeholder.size(), kSystemToken);
  auto tokenizer = Tokenizer::Parse(text, "");
  EXPECT_TRUE(tokenizer.ok()) << tokenizer.status();
  return tokenizer.ok() ? std::move(*tokenizer) : nullptr;
}

class EncodingGolden : public testing::TestWithParam<GoldenFile> {
 protected:
  static void SetUpTestSuite() {
    tokenizer_ = LoadTokenizer();
    ASSERT_NE(tokenizer_, nullptr);
  }
  static void TearDownTestSuite() { tokenizer_.reset(); }

  void SetUp() override {
    std::ifstream file(std::string("tests/data/encoding/") + GetParam().name + ".json");
    golden_ = Json::parse(file);
    auto encoding = GetParam().create(tokenizer_.get());
    ASSERT_TRUE(encoding.ok()) << encoding.status();
    encoding_ = std::move(*encoding);
  }

  void ExpectPrompt(const Json& conversation, const std::string& expected) {
    SCOPED_TRACE(conversation.at("name").get<std::string>());
    const auto chat =
        encoding_->Encode(MessagesOf(conversation), OptionsOf(conversation));
    ASSERT_TRUE(chat.ok()) << chat.status();
    EXPECT_EQ(chat->text, expected);
    EXPECT_EQ(*tokenizer_->Decode(chat->ids, /*skip_special=*/false), expected);
    if (expected.ends_with(kThinkToken) || expected.ends_with(kEndThinkToken)) {
      EXPECT_EQ(chat->in_reasoning, expected.ends_with(kThinkToken));
    }
    // Where no message spells a control token, the ids are those of the text as a whole.
    const std::string messages = conversation.at("messages").dump();
    const bool spells_control = messages.find("｜") != std::string::npos ||
                                messages.find("</think>") != std::string::npos;
    const std::vector<int32_t> recognized =
        tokenizer_->Encode(expected, AddedTokens::kRecognize);
    if (spells_control) {
      EXPECT_NE(chat->ids, recognized);
    } else {
      EXPECT_EQ(chat->ids, recognized);
    }
  }

  static std::unique_ptr<Tokenizer> tokenizer_;
  Json golden_;
  std::unique_ptr<ChatEncoding> encoding_;
};
std::unique_ptr<Tokenizer> EncodingGolden::tokenizer_;

TEST_P(EncodingGolden, EveryConversationGivesTheRecordedPrompt) {
  ASSERT_EQ(golden_.at("prompts").size(), GetParam().num_prompts);
  for (const Json& conversation : golden_.at("prompts")) {
    ExpectPrompt(conversation, conversation.at("prompt"));
  }
}

TEST_P(EncodingGolden, WhereTheOriginalsDifferThePublishedEncoderIsFollowed) {
  const Json contested = golden_.value("contested", Json::array());
  ASSERT_EQ(contested.size(), GetParam().num_contested);
  for (const Json& conversation : contested) {
    ExpectPrompt(conversation, conversation.at("encoder"));
  }
}

const GoldenFile kV3Golden = {
    "v3", 39, 0, [](const Tokenizer* t) { return CreateV3Encoding(kV3Format, t); }};
const GoldenFile kR1Golden = {
    "r1", 35, 0, [](const Tokenizer* t) { return CreateV3Encoding(kR1Format, t); }};
const GoldenFile kV31Golden = {
    "v31", 44, 0, [](const Tokenizer* t) { return CreateV3Encoding(kV31Format, t); }};
const GoldenFile kV32Golden = {
    "v32", 54, 0, [](const Tokenizer* t) { return CreateV32Encoding(kV32, t); }};
const GoldenFile kV4Golden = {
    "v4", 57, 8, [](const Tokenizer* t) { return CreateV4Encoding(kV4Preview, t); }};
const GoldenFile kV4JulyGolden = {
    "v4_0731", 55, 10, [](const Tokenizer* t) { return CreateV4Encoding(kV4July, t); }};
const GoldenFile kV41Golden = {
    "v41", 65, 3, [](const Tokenizer* t) { return CreateV4Encoding(kV41, t); }};

std::string GoldenName(const testing::TestParamInfo<GoldenFile>& golden) {
  return golden.param.name;
}

INSTANTIATE_TEST_SUITE_P(Generations, EncodingGolden,
                         testing::Values(kV3Golden, kR1Golden, kV31Golden, kV32Golden,
                                         kV4Golden, kV4JulyGolden, kV41Golden),
                         GoldenName);

void ExpectTurn(const Json& expected, const ParsedTurn& turn) {
  EXPECT_EQ(turn.reasoning, expected.at("reasoning"));
  EXPECT_EQ(turn.content, expected.at("content"));
  ASSERT_EQ(turn.tool_calls.size(), expected.at("tool_calls").size());
  for (size_t i = 0; i < turn.tool_calls.size(); ++i) {
    EXPECT_EQ(turn.tool_calls[i].name, expected.at("tool_calls")[i].at("name"));
    EXPECT_EQ(turn.tool_calls[i].arguments, expected.at("tool_calls")[i].at("arguments"));
  }
}

class TurnGolden : public EncodingGolden {};

// The text of a case without the end-of-sentence token, which the engine stops at.
std::string TextOf(const Json& c) {
  std::string text = c.at("text");
  if (text.ends_with(kEosToken)) {
    text.resize(text.size() - kEosToken.size());
  }
  return text;
}

TEST_P(TurnGolden, WellFormedTurnsParseAndMalformedOnesAreRefused) {
  ASSERT_GE(golden_.at("outputs_cases").size(), 31U);
  for (const Json& c : golden_.at("outputs_cases")) {
    SCOPED_TRACE(c.at("name").get<std::string>());
    const std::string text = TextOf(c);
    for (const std::string& end : {std::string(), std::string(kEosToken)}) {
      const auto turn = encoding_->ParseTurn(text + end, c.at("thinking"));
      if (c.at("malformed")) {
        EXPECT_EQ(turn.status().code(), absl::StatusCode::kInvalidArgument);
        continue;
      }
      ASSERT_TRUE(turn.ok()) << turn.status();
      ExpectTurn(c.at("parsed"), *turn);
    }
  }
}

class PublishedParser : public EncodingGolden {};

TEST_P(PublishedParser, IsAsStrictHere) {
  ASSERT_EQ(golden_.at("outputs_cases").size(), 32U);
  for (const Json& c : golden_.at("outputs_cases")) {
    SCOPED_TRACE(c.at("name").get<std::string>());
    const auto turn =
        encoding_->ParseTurn(c.at("text").get<std::string>(), c.at("thinking"));
    if (c.at("parsed").contains("error")) {
      EXPECT_EQ(turn.status().code(), absl::StatusCode::kInvalidArgument);
      continue;
    }
    ASSERT_TRUE(turn.ok()) << turn.status();
    ExpectTurn(c.at("parsed"), *turn);
  }
}

// Feeds `text` in pieces that end at `cuts` (ascending).
ParsedTurn ParseInPieces(const ChatEncoding& encoding, const Json& c,
                         const std::vector<size_t>& cuts) {
  const std::string text = TextOf(c);
  const std::unique_ptr<TurnParser> parser = encoding.NewTurnParser(c.at("thinking"));
  ParsedTurn turn;
  const auto add = [&turn](const TurnParser::Delta& delta) {
    turn.reasoning += delta.reasoning;
    turn.content += delta.content;
    turn.tool_calls.insert(turn.tool_calls.end(), delta.tool_calls.begin(),
                           delta.tool_calls.end());
  };
  size_t begin = 0;
  for (const size_t cut : cuts) {
    add(parser->Push(std::string_view(text).substr(begin, cut - begin)));
    begin = cut;
  }
  add(parser->Push(std::string_view(text).substr(begin)));
  add(parser->Finish());
  return turn;
}

// The recorded result. Where the record allows any recovery, or is of a parser that
// recovers nothing, that of the whole text in one piece.
Json ExpectedTurn(const ChatEncoding& encoding, const Json& c) {
  const bool is_streamed = c.contains("same_when_streamed") || !c.at("malformed");
  if (is_streamed && !c.value("advisory", false)) {
    return c.at("parsed");
  }
  const ParsedTurn turn = ParseInPieces(encoding, c, {});
  Json calls = Json::array();
  for (const ToolCall& call : turn.tool_calls) {
    calls.push_back({{"name", call.name}, {"arguments", call.arguments}});
  }
  return {
      {"reasoning", turn.reasoning}, {"content", turn.content}, {"tool_calls", calls}};
}

class StreamedTurnGolden : public EncodingGolden {};

TEST_P(StreamedTurnGolden, StreamedTurnsParseAlikeForEverySplit) {
  const uint32_t seed = 20240611;
  SCOPED_TRACE(seed);
  std::mt19937 random(seed);
  for (const Json& c : golden_.at("outputs_cases")) {
    SCOPED_TRACE(c.at("name").get<std::string>());
    const Json expected = ExpectedTurn(*encoding_, c);
    const size_t num_bytes = TextOf(c).size();
    for (size_t cut = 0; cut <= num_bytes; ++cut) {
      ExpectTurn(expected, ParseInPieces(*encoding_, c, {cut}));
    }
    for (int round = 0; round < 50; ++round) {
      std::vector<size_t> cuts;
      for (size_t i = 1; i < num_bytes; ++i) {
        if (random() % (static_cast<size_t>(round) + 1) == 0) {
          cuts.push_back(i);
        }
      }
      ExpectTurn(expected, ParseInPieces(*encoding_, c, cuts));
    }
    if (testing::Test::HasFailure()) {
      return;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(V4, TurnGolden,
                         testing::Values(kV4Golden, kV4JulyGolden, kV41Golden),
                         GoldenName);
INSTANTIATE_TEST_SUITE_P(V32, PublishedParser, testing::Values(kV32Golden), GoldenName);
INSTANTIATE_TEST_SUITE_P(Dsml, StreamedTurnGolden,
                         testing::Values(kV32Golden, kV4Golden, kV4JulyGolden,
                                         kV41Golden),
                         GoldenName);

}  // namespace
}  // namespace tessera::model
