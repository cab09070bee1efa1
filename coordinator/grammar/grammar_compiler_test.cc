#include "coordinator/grammar/grammar_compiler.h"

#include <memory>
#include <string>
#include <vector>

#include "gtest/gtest.h"

#include "tests/testing/grammar_text.h"
#include "tests/testing/status_matchers.h"

namespace tessera::coordinator {
namespace {

using testing::IsOk;
using testing::StatusIs;

class GrammarCompilerTest : public ::testing::Test {
 protected:
  void SetUp() override {
    auto tokenizer = model::Tokenizer::Load("models/demo");
    ASSERT_THAT(tokenizer, IsOk());
    tokenizer_ = *std::move(tokenizer);
    eos_ = *tokenizer_->TokenId("<｜end▁of▁sentence｜>");
    auto compiler = GrammarCompiler::Create({.vocab_size = tokenizer_->size() + 5,
                                             .num_token_ids = tokenizer_->size(),
                                             .eos_token_ids = {eos_}},
                                            GrammarLimits(), *tokenizer_);
    ASSERT_THAT(compiler, IsOk());
    compiler_ = *std::move(compiler);
  }

  absl::Status Try(GrammarKind kind, const std::string& text) {
    return compiler_->Compile({.kind = kind, .text = text}).status();
  }

  // Whether `text` is what the grammar allows from its begin to its end.
  bool Allows(GrammarKind kind, const std::string& grammar_text, const std::string& text,
              std::optional<int32_t> begins_after = std::nullopt) {
    const auto grammar = compiler_->Compile({.kind = kind, .text = grammar_text});
    EXPECT_THAT(grammar, IsOk());
    if (!grammar.ok()) {
      return false;
    }
    return testing::GrammarAllows(**grammar, *tokenizer_, eos_, text, begins_after);
  }

  std::unique_ptr<model::Tokenizer> tokenizer_;
  int32_t eos_ = 0;
  std::unique_ptr<GrammarCompiler> compiler_;
};

TEST_F(GrammarCompilerTest, EachKindAllowsWhatItSaysAndEndsThere) {
  EXPECT_TRUE(Allows(GrammarKind::kJsonObject, "", R"({"a": [1, null, "x"]})"));
  EXPECT_FALSE(Allows(GrammarKind::kJsonObject, "", R"([1])"));
  EXPECT_FALSE(Allows(GrammarKind::kJsonObject, "", R"({"a": 1)"));
  const std::string schema = R"({"type": "object", "properties": {"z": {"type":
      "integer", "minimum": 3}, "a": {"type": "string"}}, "required": ["z", "a"]})";
  EXPECT_TRUE(Allows(GrammarKind::kJsonSchema, schema, R"({"z": 7, "a": "x"})"));
  EXPECT_FALSE(Allows(GrammarKind::kJsonSchema, schema, R"({"z": 2, "a": "x"})"));
  EXPECT_FALSE(Allows(GrammarKind::kJsonSchema, schema, R"({"z": 7})"));
  EXPECT_FALSE(Allows(GrammarKind::kJsonSchema, schema, R"({"z": 7, "a": "x", "b": 1})"));
  EXPECT_TRUE(Allows(GrammarKind::kRegex, "[ab]{2,3}", "aba"));
  EXPECT_FALSE(Allows(GrammarKind::kRegex, "[ab]{2,3}", "abab"));
  EXPECT_TRUE(Allows(GrammarKind::kEbnf, R"(root ::= "x" root | "y")", "xxy"));
  EXPECT_FALSE(Allows(GrammarKind::kEbnf, R"(root ::= "x" root | "y")", "xx"));
  EXPECT_TRUE(Allows(GrammarKind::kChoice, R"(["yes", "no"])", "no"));
  EXPECT_FALSE(Allows(GrammarKind::kChoice, R"(["yes", "no"])", "yesno"));
}

TEST_F(GrammarCompilerTest, BeforeItBeginsEverythingIsAllowedButAnEnd) {
  const int32_t think_end = tokenizer_->Encode("!", model::AddedTokens::kPlain).at(0);
  EXPECT_TRUE(Allows(GrammarKind::kChoice, R"(["yes"])", "any words!yes", think_end));
  EXPECT_FALSE(Allows(GrammarKind::kChoice, R"(["yes"])", "any words", think_end));
}

// A model that likes blanks would fill its answer with them.
TEST_F(GrammarCompilerTest, BlanksOfJsonAreBoundedEverywhere) {
  const std::string many(40, ' ');
  EXPECT_TRUE(Allows(GrammarKind::kJsonObject, "", R"({"a":     1})"));
  EXPECT_FALSE(Allows(GrammarKind::kJsonObject, "", R"({"a":)" + many + "1}"));
  const std::string tag =
      R"({"type": "structural_tag", "format": {"type": "tag", "begin": "<", "end": ">",)"
      R"( "content": {"type": "json_schema", "json_schema": {"type": "object",)"
      R"( "properties": {"a": {"type": "integer"}}, "required": ["a"]}}}})";
  EXPECT_TRUE(Allows(GrammarKind::kStructuralTag, tag, R"(<{"a":     1}>)"));
  EXPECT_FALSE(Allows(GrammarKind::kStructuralTag, tag, R"(<{"a":)" + many + "1}>"));
}

TEST_F(GrammarCompilerTest, WhatIsNoGrammarIsTheCallersFault) {
  const auto kInvalid = absl::StatusCode::kInvalidArgument;
  EXPECT_THAT(Try(GrammarKind::kJsonSchema, "{"), StatusIs(kInvalid));
  EXPECT_THAT(Try(GrammarKind::kJsonSchema, R"({"type": "text"})"), StatusIs(kInvalid));
  EXPECT_THAT(Try(GrammarKind::kRegex, "(a"), StatusIs(kInvalid));
  EXPECT_THAT(Try(GrammarKind::kRegex, ""), StatusIs(kInvalid));
  EXPECT_THAT(Try(GrammarKind::kEbnf, "root ::= missing"), StatusIs(kInvalid));
  EXPECT_THAT(Try(GrammarKind::kChoice, "[]"), StatusIs(kInvalid));
  EXPECT_THAT(Try(GrammarKind::kStructuralTag, R"({"type": "structural_tag"})"),
              StatusIs(kInvalid));
}

TEST_F(GrammarCompilerTest, HostileTextEndsInAnErrorAndNotInTheProcess) {
  const auto kInvalid = absl::StatusCode::kInvalidArgument;
  EXPECT_THAT(Try(GrammarKind::kRegex, std::string(30000, '(')), StatusIs(kInvalid));
  EXPECT_THAT(Try(GrammarKind::kEbnf, "root ::= " + std::string(30000, '(')),
              StatusIs(kInvalid));
  EXPECT_THAT(Try(GrammarKind::kJsonSchema, std::string(60000, '[')), StatusIs(kInvalid));
  EXPECT_THAT(Try(GrammarKind::kRegex, std::string(100000, 'a')), StatusIs(kInvalid));
  EXPECT_THAT(Try(GrammarKind::kRegex, "((a{4000}){4000}){4000}"), StatusIs(kInvalid));
}

TEST_F(GrammarCompilerTest, AnImpossibleTokenIsOurFault) {
  const auto grammar = compiler_->Compile({.kind = GrammarKind::kRegex, .text = "a"});
  ASSERT_THAT(grammar, IsOk());
  EXPECT_THAT((*grammar)->NewMatcher(std::nullopt)->Accept(eos_),
              StatusIs(absl::StatusCode::kInternal));
}

}  // namespace
}  // namespace tessera::coordinator
