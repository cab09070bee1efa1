// The grammar of a chat answer against the encodings themselves: what an encoding writes
// for a call is allowed, and what the grammar allows is read back as a call of a tool.
#include "coordinator/api/chat/chat_grammar.h"

#include <algorithm>
#include <memory>
#include <optional>
#include <random>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "nlohmann/json.hpp"

#include "common/clock.h"
#include "coordinator/grammar/grammar_compiler.h"
#include "model/chat/control_tokens.h"
#include "model/chat/v32_encoding.h"
#include "model/chat/v3_encoding.h"
#include "model/chat/v4_encoding.h"
#include "tests/testing/grammar_text.h"
#include "tests/testing/status_matchers.h"

namespace tessera::coordinator {
namespace {

using testing::IsOk;
using Choice = ToolDemand::Choice;
using Json = nlohmann::json;

constexpr char kTools[] =
    R"([{"type": "function", "function": {"name": "forecast", "parameters": {)"
    R"("type": "object", "properties": {"city": {"enum": ["Oslo", "Paris"]},)"
    R"( "days": {"type": "integer", "minimum": 1, "maximum": 9},)"
    R"( "metric": {"type": "boolean"}}, "required": ["city", "days", "metric"],)"
    R"( "additionalProperties": false}, "strict": true}},)"
    R"( {"type": "function", "function": {"name": "halt"}}])";
const std::string kForecast = R"({"city": "Oslo", "days": 3, "metric": true})";

ToolDemand Demand(Choice choice, const std::string& name = "", bool parallel = true) {
  ToolDemand demand;
  demand.choice = choice;
  demand.name = name;
  demand.parallel = parallel;
  return demand;
}

struct Generation {
  const char* name;
  absl::StatusOr<std::unique_ptr<model::ChatEncoding>> (*create)(
      const model::Tokenizer* tokenizer);
};

class ChatGrammarTest : public ::testing::TestWithParam<Generation> {
 protected:
  void SetUp() override {
    auto tokenizer = model::Tokenizer::Load("models/demo");
    ASSERT_THAT(tokenizer, IsOk());
    tokenizer_ = *std::move(tokenizer);
    eos_ = *tokenizer_->TokenId(model::kEosToken);
    auto compiler = GrammarCompiler::Create({.vocab_size = tokenizer_->size(),
                                             .num_token_ids = tokenizer_->size(),
                                             .eos_token_ids = {eos_}},
                                            GrammarLimits(), *tokenizer_);
    ASSERT_THAT(compiler, IsOk());
    compiler_ = *std::move(compiler);
    pool_ = std::make_unique<GrammarPool>(GrammarPoolOptions(), compiler_.get(),
                                          Clock::Real());
    auto encoding = GetParam().create(tokenizer_.get());
    ASSERT_THAT(encoding, IsOk());
    encoding_ = *std::move(encoding);
    context_.tokenizer = tokenizer_.get();
    context_.chat = encoding_.get();
    context_.grammars = pool_.get();
  }

  // The grammar of an answer to a request with kTools.
  GrammarPtr GrammarOf(const ToolDemand& demand,
                       const std::optional<GrammarSpec>& format = std::nullopt) {
    const std::string body = std::string(R"({"tools": )") + kTools + "}";
    RequestSpec spec;
    spec.grammar = format;
    const auto bad = ConstrainAnswer(context_, body, demand, false, &spec);
    EXPECT_FALSE(bad.has_value()) << bad->message;
    auto grammar = compiler_->Compile(spec.grammar.value_or(GrammarSpec()));
    EXPECT_THAT(grammar, IsOk());
    return grammar.ok() ? *grammar : nullptr;
  }

  // The error of a request with kTools that also asks for `format`, or nothing.
  std::optional<ApiError> RefusalOf(const GrammarSpec& format) {
    RequestSpec spec;
    spec.grammar = format;
    return ConstrainAnswer(context_, std::string(R"({"tools": )") + kTools + "}",
                           ToolDemand(), false, &spec);
  }

  // What the encoding writes for an assistant's turn, without its end.
  std::string TurnText(const std::string& content,
                       const std::vector<model::ToolCall>& calls) {
    const model::ChatMessage user = {
        .role = "user", .content = "?", .tools_json = std::string()};
    const model::ChatMessage system = {.role = "system", .tools_json = kTools};
    const model::ChatMessage turn = {
        .role = "assistant", .content = content, .tool_calls = calls};
    const auto prompt = encoding_->Encode({system, user}, {});
    const auto whole =
        encoding_->Encode({system, user, turn}, {.add_generation_prompt = false});
    EXPECT_THAT(prompt, IsOk());
    EXPECT_THAT(whole, IsOk());
    EXPECT_TRUE(whole->text.starts_with(prompt->text)) << prompt->text << "\n"
                                                       << whole->text;
    std::string text = whole->text.substr(prompt->text.size());
    EXPECT_TRUE(text.ends_with(model::kEosToken)) << text;
    return text.substr(0, text.size() - model::kEosToken.size());
  }

  bool Allows(const GrammarPtr& grammar, const std::string& text) {
    return testing::GrammarAllows(*grammar, *tokenizer_, eos_, text);
  }

  std::unique_ptr<model::Tokenizer> tokenizer_;
  int32_t eos_ = 0;
  std::unique_ptr<GrammarCompiler> compiler_;
  std::unique_ptr<GrammarPool> pool_;
  std::unique_ptr<model::ChatEncoding> encoding_;
  ApiContext context_;
};

model::ToolCall Forecast(const std::string& arguments) {
  return {.name = "forecast", .arguments = arguments};
}

TEST_P(ChatGrammarTest, WhatTheEncodingWritesIsAllowedWhetherACallMustComeOrMay) {
  const model::ToolCall halt = {.name = "halt", .arguments = "{}"};
  for (const Choice choice : {Choice::kAuto, Choice::kRequired}) {
    const GrammarPtr grammar = GrammarOf(Demand(choice));
    ASSERT_NE(grammar, nullptr);
    EXPECT_TRUE(Allows(grammar, TurnText("", {Forecast(kForecast)})));
    EXPECT_TRUE(Allows(grammar, TurnText("", {Forecast(kForecast), halt})));
    EXPECT_FALSE(Allows(grammar, TurnText("", {{.name = "other", .arguments = "{}"}})));
    for (const std::string arguments :
         {R"({"city": "Rome", "days": 3, "metric": true})",
          R"({"city": "Oslo", "days": 10, "metric": true})",
          R"({"city": "Oslo", "days": 3})",
          R"({"city": "Oslo", "days": 3, "metric": true, "more": 1})"}) {
      EXPECT_FALSE(Allows(grammar, TurnText("", {Forecast(arguments)}))) << arguments;
    }
  }
}

TEST_P(ChatGrammarTest, ProseIsFreeUnlessACallMustCome) {
  const GrammarPtr may = GrammarOf(Demand(Choice::kAuto));
  const GrammarPtr must = GrammarOf(Demand(Choice::kRequired));
  ASSERT_TRUE(may != nullptr && must != nullptr);
  EXPECT_TRUE(Allows(may, "It rains in Oslo."));
  EXPECT_TRUE(Allows(may, TurnText("Let me look.", {Forecast(kForecast)})));
  EXPECT_FALSE(Allows(must, "It rains in Oslo."));
}

TEST_P(ChatGrammarTest, TheDemandBoundsWhichToolsAndHowMany) {
  const GrammarPtr one = GrammarOf(Demand(Choice::kRequired, "", /*parallel=*/false));
  const GrammarPtr named = GrammarOf(Demand(Choice::kRequired, "halt"));
  ASSERT_TRUE(one != nullptr && named != nullptr);
  const model::ToolCall halt = {.name = "halt", .arguments = "{}"};
  EXPECT_TRUE(Allows(one, TurnText("", {halt})));
  EXPECT_FALSE(Allows(one, TurnText("", {halt, halt})));
  EXPECT_TRUE(Allows(named, TurnText("", {halt})));
  EXPECT_FALSE(Allows(named, TurnText("", {Forecast(kForecast)})));
}

TEST_P(ChatGrammarTest, WhatElseTheAnswerMustBeHoldsBesideTheTools) {
  const std::pair<GrammarSpec, const char*> rows[] = {
      {{.kind = GrammarKind::kChoice, .text = R"(["yes", "no"])"}, "yes"},
      {{.kind = GrammarKind::kRegex, .text = "[ab]+"}, "abba"},
      {{.kind = GrammarKind::kEbnf, .text = R"(root ::= "x" root | "y")"}, "xxy"},
      {{.kind = GrammarKind::kJsonObject}, R"({"a": 1})"},
      {{.kind = GrammarKind::kJsonSchema, .text = R"({"type": "integer"})"}, "12"},
      {{.kind = GrammarKind::kStructuralTag,
        .text = R"({"type": "structural_tag", "format":)"
                R"( {"type": "const_string", "value": "so"}})"},
       "so"}};
  for (const auto& [format, answer] : rows) {
    const GrammarPtr grammar = GrammarOf(ToolDemand(), format);
    ASSERT_NE(grammar, nullptr) << answer;
    EXPECT_TRUE(Allows(grammar, answer)) << answer;
    EXPECT_FALSE(Allows(grammar, "other")) << answer;
    EXPECT_TRUE(Allows(grammar, TurnText("", {Forecast(kForecast)})) ||
                Allows(grammar, TurnText("", {Forecast(kForecast)}).substr(2)));
  }
}

// A string of a body is as deep as its client likes, and recursion ends the process.
TEST_P(ChatGrammarTest, TextThatNestsWithoutEndIsRefused) {
  for (const GrammarKind kind :
       {GrammarKind::kJsonSchema, GrammarKind::kStructuralTag, GrammarKind::kChoice}) {
    for (const size_t depth : {size_t{200}, size_t{30000}, size_t{1000000}}) {
      EXPECT_TRUE(RefusalOf({.kind = kind, .text = std::string(depth, '[')}).has_value());
    }
  }
  EXPECT_TRUE(RefusalOf({.kind = GrammarKind::kChoice, .text = R"([1])"}).has_value());
}

// Any walk through the masks ends in whole calls; blanks between their parts are free.
TEST_P(ChatGrammarTest, WhatIsAllowedIsReadBackAsCallsOfTheSchema) {
  const GrammarPtr grammar = GrammarOf(Demand(Choice::kRequired, "forecast"));
  ASSERT_NE(grammar, nullptr);
  const uint32_t seed = 20261126;
  SCOPED_TRACE(seed);
  std::mt19937 random(seed);
  for (int i = 0; i < 20; ++i) {
    const auto text = testing::WalkGrammar(*grammar, *tokenizer_, eos_, 2000, &random);
    ASSERT_TRUE(text.has_value());
    const auto parser = encoding_->NewTurnParser(/*thinking=*/false);
    std::vector<model::ToolCall> calls = parser->Push(*text).tool_calls;
    const model::TurnParser::Delta rest = parser->Finish();
    calls.insert(calls.end(), rest.tool_calls.begin(), rest.tool_calls.end());
    ASSERT_FALSE(calls.empty()) << *text;
    for (const model::ToolCall& call : calls) {
      EXPECT_EQ(call.name, "forecast");
      const Json arguments = Json::parse(call.arguments, nullptr, false);
      ASSERT_TRUE(arguments.is_object()) << *text;
      EXPECT_EQ(arguments.size(), 3U) << *text;
      EXPECT_TRUE(arguments["city"] == "Oslo" || arguments["city"] == "Paris") << *text;
      EXPECT_TRUE(arguments["days"].is_number_integer()) << *text;
      EXPECT_TRUE(arguments["metric"].is_boolean()) << *text;
    }
  }
}

const Generation kGenerations[] = {
    {"v3", [](auto* t) { return CreateV3Encoding(model::kV3Format, t); }},
    {"v31", [](auto* t) { return CreateV3Encoding(model::kV31Format, t); }},
    {"v32", [](auto* t) { return CreateV32Encoding(model::kV32, t); }},
    {"v4", [](auto* t) { return CreateV4Encoding(model::kV4Preview, t); }},
    {"v4_0731", [](auto* t) { return CreateV4Encoding(model::kV4July, t); }},
    {"v41", [](auto* t) { return CreateV4Encoding(model::kV41, t); }}};

INSTANTIATE_TEST_SUITE_P(Generations, ChatGrammarTest, ::testing::ValuesIn(kGenerations),
                         [](const ::testing::TestParamInfo<Generation>& generation) {
                           return std::string(generation.param.name);
                         });

}  // namespace
}  // namespace tessera::coordinator
